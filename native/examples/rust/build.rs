// EFFDET_LIB_DIR is the folder of libeffdet.so; if it is not set, the system's folders are
// searched.
fn main() {
    println!("cargo:rerun-if-env-changed=EFFDET_LIB_DIR");
    if let Ok(folder) = std::env::var("EFFDET_LIB_DIR") {
        println!("cargo:rustc-link-search=native={folder}");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
    }
    println!("cargo:rustc-link-lib=dylib=effdet");
}
