// effdet-detect MODEL PICTURE...: prints the detections of each picture, one per line.
#include <cstdio>
#include <iostream>

#include "arguments.hpp"
#include "message.hpp"
#include "picture.hpp"

namespace {

constexpr const char* kUsage =
    "usage: effdet-detect [options] MODEL PICTURE...\n"
    "\n"
    "Prints one line per detection: class, score, x1, y1, x2, y2 in pixels of the picture. With\n"
    "several pictures, a picture's name comes before its lines. Reads PNG, JPEG and PPM; the EXIF\n"
    "orientation is not applied.\n"
    "\n"
    "  --score-threshold S   leave out detections below S (default: the model's own threshold)\n"
    "  --json                print one JSON array per picture, in full precision\n";

// Names come from the model file and from the command line. Characters that could control the
// terminal are replaced.
std::string printable(const std::string& text) {
    std::string shown(text.size() + 1, '\0');
    effdet::copy_printable(text.c_str(), shown.data(), shown.size());
    shown.resize(shown.find('\0'));
    return shown;
}

std::string quoted(const std::string& text) {
    std::string json = "\"";
    for (const char each : text) {
        if (each == '"' || each == '\\') {
            json += '\\';
        }
        json += each;
    }
    return json + '"';
}

void print_rows(const effdet::Detector& detector, const std::vector<effdet::Row>& rows) {
    for (const effdet::Row& row : rows) {
        std::printf("%s %.4f %.2f %.2f %.2f %.2f\n",
                    printable(detector.class_name(row.class_index)).c_str(),
                    static_cast<double>(row.score), static_cast<double>(row.x1),
                    static_cast<double>(row.y1), static_cast<double>(row.x2),
                    static_cast<double>(row.y2));
    }
}

// Prints nine digits, from which every float32 can be read back exactly.
void print_json(const effdet::Detector& detector, const std::vector<effdet::Row>& rows) {
    std::printf("[");
    const char* separator = "";
    for (const effdet::Row& row : rows) {
        std::printf("%s{\"box\": [%.9g, %.9g, %.9g, %.9g], \"score\": %.9g, \"label\": %d, "
                    "\"name\": %s}",
                    separator, static_cast<double>(row.x1), static_cast<double>(row.y1),
                    static_cast<double>(row.x2), static_cast<double>(row.y2),
                    static_cast<double>(row.score), row.class_index,
                    quoted(printable(detector.class_name(row.class_index))).c_str());
        separator = ", ";
    }
    std::printf("]\n");
}

}  // namespace

int main(int count, char** values) {
    try {
        const Arguments arguments = read_arguments(count, values);
        if (arguments.help) {
            std::cout << kUsage << kSharedOptions;
            return 0;
        }
        if (arguments.files.size() < 2) {
            std::cerr << kUsage << kSharedOptions;
            return 2;
        }
        const effdet::Detector detector(arguments.files.front(), arguments.options);
        for (std::size_t at = 1; at < arguments.files.size(); ++at) {
            const LoadedPicture picture = load_picture(arguments.files[at]);
            effdet::Image image(picture.pixels.data(), picture.width, picture.height,
                                picture.format);
            const auto rows = detector.detect(image, arguments.threshold);
            if (arguments.json) {
                print_json(detector, rows);
                continue;
            }
            if (arguments.files.size() > 2) {
                std::printf("%s\n", printable(arguments.files[at]).c_str());
            }
            print_rows(detector, rows);
        }
        return 0;
    } catch (const std::invalid_argument& error) {
        std::cerr << "error: " << error.what() << '\n';
        return 2;
    } catch (const std::exception& error) {
        std::cerr << "error: " << error.what() << '\n';
        return 5;
    }
}
