// Records the calls of the fakes of CUDA and TensorRT, and decides which of them fail.
#pragma once

#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <vector>

struct Recorder {
    std::mutex mutex;
    std::string calls;
    std::set<std::string> failing;
    int live = 0;  // how many objects were created and not yet destroyed
    bool is_recording = false;
    std::vector<std::function<void()>> recording;

    // Records a call and returns whether it succeeds.
    bool note(const std::string& name) {
        const std::lock_guard lock(mutex);
        calls += name + ' ';
        return failing.count(name) == 0;
    }

    void count(int change) {
        const std::lock_guard lock(mutex);
        live += change;
    }

    // Does the work now, or stores it in the graph that is being recorded, to be done at its
    // launch.
    void queue(std::function<void()> work) {
        if (is_recording) {
            recording.push_back(std::move(work));
        } else {
            work();
        }
    }
};

Recorder& recorder();
