// The library's only exception; the C functions turn it into a status and a message.
#pragma once

#include <effdet.h>

#include <stdexcept>
#include <string>

namespace effdet {

class Failure : public std::runtime_error {
public:
    // `cause` is one sentence; `remedy` is a sentence that says what to do.
    Failure(effdet_status status, const std::string& cause, const std::string& remedy)
        : std::runtime_error(cause + " " + remedy), status(status) {}

    effdet_status status;
};

}  // namespace effdet
