/* effdet.h is valid C99: this file is compiled as C99. It calls functions that need no model. */
#include <effdet.h>
#include <stdio.h>
#include <string.h>

int main(void) {
    effdet_detector *detector = NULL;
    effdet_open_options options = {0};
    options.struct_size = sizeof options;
    if (effdet_abi_version() != EFFDET_ABI_VERSION || strlen(effdet_version()) == 0) {
        return 1;
    }
    if (effdet_open("/nowhere/model.onnx", &options, &detector) != EFFDET_BAD_MODEL) {
        return 2;
    }
    printf("%s: %s\n", effdet_status_name(EFFDET_BAD_MODEL), effdet_last_error());
    effdet_close(detector);
    /* Closing leaves the message, so that it can be read after everything is released. */
    return strstr(effdet_last_error(), "does not exist") != NULL ? 0 : 3;
}
