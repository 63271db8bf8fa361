// What the fakes of CUDA and TensorRT did, and which of their calls are to fail.
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
    int live = 0;  // things that were created and not yet destroyed
    bool is_recording = false;
    std::vector<std::function<void()>> recording;

    // Notes a call; false where it is to fail.
    bool note(const std::string& name) {
        const std::lock_guard lock(mutex);
        calls += name + ' ';
        return failing.count(name) == 0;
    }

    void count(int change) {
        const std::lock_guard lock(mutex);
        live += change;
    }

    // Does it now, or when the graph that is being recorded is launched.
    void queue(std::function<void()> work) {
        if (is_recording) {
            recording.push_back(std::move(work));
        } else {
            work();
        }
    }
};

Recorder& recorder();
