#include <effdet.hpp>

#include <iostream>

int main() {
    try {
        const effdet::Detector detector("absent.onnx");
    } catch (const effdet::Error& error) {
        std::cout << effdet_version() << ": " << error.what() << '\n';
        return error.status() == EFFDET_BAD_MODEL ? 0 : 1;
    }
    return 1;
}
