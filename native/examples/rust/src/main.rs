//! effdet-example MODEL PICTURE.ppm: uses libeffdet from Rust, without any other crate.

use std::ffi::{c_char, c_void, CStr, CString};
use std::{env, fs, process, ptr};

#[repr(C)]
struct Image {
    data: *const u8,
    width: i32,
    height: i32,
    stride: isize,
    format: i32,
    memory: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Row {
    x1: f32,
    y1: f32,
    x2: f32,
    y2: f32,
    score: f32,
    class_index: i32,
}

#[repr(C)]
struct Handle {
    _private: [u8; 0],
}

extern "C" {
    fn effdet_open(path: *const c_char, options: *const c_void, handle: *mut *mut Handle) -> i32;
    fn effdet_close(handle: *mut Handle);
    fn effdet_last_error() -> *const c_char;
    fn effdet_class_name(handle: *const Handle, class_index: i32) -> *const c_char;
    fn effdet_detect(
        handle: *mut Handle,
        images: *const Image,
        count: usize,
        options: *const c_void,
        rows: *mut Row,
        rows_per_image: usize,
        counts: *mut usize,
    ) -> i32;
}

/// Copies a text of libeffdet, because it may be valid only until the next call or effdet_close.
fn text(pointer: *const c_char) -> String {
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

fn check(status: i32) -> Result<(), String> {
    match status {
        0 => Ok(()),
        _ => Err(text(unsafe { effdet_last_error() })),
    }
}

/// A loaded model. Several threads may use one handle at once.
struct Detector(*mut Handle);

unsafe impl Send for Detector {}
unsafe impl Sync for Detector {}

impl Detector {
    fn open(path: &str) -> Result<Self, String> {
        let path = CString::new(path).map_err(|error| error.to_string())?;
        let mut handle = ptr::null_mut();
        check(unsafe { effdet_open(path.as_ptr(), ptr::null(), &mut handle) })?;
        Ok(Self(handle))
    }

    fn detect(&self, pixels: &[u8], width: i32, height: i32) -> Result<Vec<Row>, String> {
        assert_eq!(pixels.len(), (width * height * 3) as usize);
        let image = Image { data: pixels.as_ptr(), width, height, stride: 0, format: 0, memory: 0 };
        let mut rows = vec![Row::default(); 100];
        let mut count = 0;
        check(unsafe {
            effdet_detect(self.0, &image, 1, ptr::null(), rows.as_mut_ptr(), rows.len(), &mut count)
        })?;
        rows.truncate(count);
        Ok(rows)
    }

    fn class_name(&self, index: i32) -> String {
        text(unsafe { effdet_class_name(self.0, index) })
    }
}

impl Drop for Detector {
    fn drop(&mut self) {
        unsafe { effdet_close(self.0) }
    }
}

fn read_ppm(path: &str) -> Result<(Vec<u8>, i32, i32), String> {
    let bytes = fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    let mut numbers = Vec::new();
    let mut position = 2;
    while numbers.len() < 3 {
        let start = position + bytes[position..].iter().position(u8::is_ascii_digit).ok_or(path)?;
        let length = bytes[start..].iter().position(|each| !each.is_ascii_digit()).ok_or(path)?;
        let digits = String::from_utf8_lossy(&bytes[start..start + length]).into_owned();
        numbers.push(digits.parse::<i32>().map_err(|error| error.to_string())?);
        position = start + length;
    }
    Ok((bytes[position + 1..].to_vec(), numbers[0], numbers[1]))
}

fn run(model: &str, picture: &str) -> Result<(), String> {
    let detector = Detector::open(model)?;
    let (pixels, width, height) = read_ppm(picture)?;
    for row in detector.detect(&pixels, width, height)? {
        let name = detector.class_name(row.class_index);
        println!("{name} {:.4} {:.2} {:.2} {:.2} {:.2}", row.score, row.x1, row.y1, row.x2, row.y2);
    }
    Ok(())
}

fn main() {
    let arguments: Vec<String> = env::args().collect();
    if arguments.len() != 3 {
        eprintln!("usage: effdet-example MODEL PICTURE.ppm");
        process::exit(2);
    }
    if let Err(message) = run(&arguments[1], &arguments[2]) {
        eprintln!("{message}");
        process::exit(1);
    }
}
