// camera MODEL [CAMERA | VIDEO | PICTURE]: draws the detections into each frame; any key ends it.
#include <effdet.hpp>
#include <opencv2/highgui.hpp>
#include <opencv2/imgproc.hpp>
#include <opencv2/videoio.hpp>

#include <iostream>

namespace {

// OpenCV's pictures are BGR, and there may be a gap between their rows. No copy is made.
effdet::Image view(const cv::Mat& frame) {
    return {frame.data, frame.cols, frame.rows, EFFDET_BGR, static_cast<std::ptrdiff_t>(frame.step)};
}

void draw(cv::Mat& frame, const effdet::Row& row, const std::string& name) {
    const cv::Point2f corner(row.x1, row.y1);
    cv::rectangle(frame, corner, cv::Point2f(row.x2, row.y2), {0, 200, 0}, 2);
    cv::putText(frame, name, corner, cv::FONT_HERSHEY_SIMPLEX, 0.6, {0, 200, 0}, 2);
}

}  // namespace

int main(int count, char** values) {
    if (count < 2) {
        std::cerr << "usage: camera MODEL [CAMERA | VIDEO | PICTURE]\n";
        return 2;
    }
    try {
        const effdet::Detector detector(values[1]);
        cv::VideoCapture source;
        if (count > 2) {
            source.open(values[2]);
        } else {
            source.open(0);
        }
        cv::Mat frame;
        while (source.read(frame) && cv::waitKey(1) < 0) {
            for (const effdet::Row& row : detector.detect(view(frame), 0.3F)) {
                draw(frame, row, detector.class_name(row.class_index));
            }
            cv::imshow("effdet", frame);
        }
        return 0;
    } catch (const effdet::Error& error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
}
