/* libeffdet: EfficientDet files exported by effdet-deploy, from pictures to boxes, in C.
 *
 *     effdet_detector *detector = NULL;
 *     if (effdet_open("digits.onnx", NULL, &detector) != EFFDET_OK) {
 *         fprintf(stderr, "%s\n", effdet_last_error());
 *     }
 *
 * No function throws, prints or ends the process. Every function that can fail returns a status;
 * effdet_last_error() gives the sentence that explains a failure, separately for every thread.
 * Several threads may use a detector at once. Call effdet_close only when no other call on the
 * detector is running, and make no call on it afterwards.
 *
 * A structure that begins with struct_size may grow in later releases. Set struct_size to the size
 * of the structure, and the other fields to zero, which is their default.
 */
#ifndef EFFDET_H
#define EFFDET_H

#include <stddef.h>
#include <stdint.h>

#define EFFDET_ABI_VERSION 1

#if defined(_WIN32)
#define EFFDET_API
#elif defined(__GNUC__)
#define EFFDET_API __attribute__((visibility("default")))
#else
#define EFFDET_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum effdet_status {
    EFFDET_OK = 0,
    EFFDET_INVALID_ARGUMENT = 1, /* an argument is not valid: see the message */
    EFFDET_BAD_MODEL = 2,        /* the model or its sidecar FILE.json is damaged or unusable */
    EFFDET_MISSING = 3,          /* a runtime's library or a device is missing on this machine */
    EFFDET_NO_MEMORY = 4,        /* memory ran out, on the host or on the device */
    EFFDET_RUN_FAILED = 5,       /* the runtime failed, or computed NaN or infinity */
    EFFDET_INTERNAL = 6          /* a bug in libeffdet: please report it */
} effdet_status;

/* How the bytes of a pixel are laid out. Alpha is blended over white, as effdet-deploy does in
 * Python; the X of RGBX and BGRX is ignored. */
typedef enum effdet_pixel_format {
    EFFDET_RGB = 0,
    EFFDET_BGR = 1,
    EFFDET_RGBA = 2,
    EFFDET_BGRA = 3,
    EFFDET_RGBX = 4,
    EFFDET_BGRX = 5,
    EFFDET_GRAY = 6
} effdet_pixel_format;

typedef enum effdet_memory {
    EFFDET_HOST = 0,
    EFFDET_CUDA = 1 /* TensorRT only; the picture must have the model's input size */
} effdet_memory;

typedef struct effdet_detector effdet_detector;

typedef struct effdet_open_options {
    size_t struct_size;
    const char *backend; /* "onnxruntime", "openvino" or "tensorrt"; NULL: by the kind of file */
    const char *library; /* path of the runtime's shared library; NULL: see effdet_open */
    const char *device;  /* "cpu", "cuda" or "cuda:1"; NULL takes a GPU if the runtime can */
    int32_t threads;     /* number of CPU threads; 0 lets the runtime choose */
    int32_t trust;       /* 1: load a TensorRT engine (native code) whose sidecar has no SHA-256 */
} effdet_open_options;

/* The inputs and outputs of a model. It takes pictures of any size unless source_width is set. */
typedef struct effdet_info {
    size_t struct_size;
    int32_t input_height, input_width;   /* size of the network's input */
    int32_t source_height, source_width; /* the only size of picture that it takes; 0: any size */
    int32_t class_count;
    int32_t max_detections; /* a picture has at most this many rows */
    int32_t batch_minimum, batch_optimum, batch_maximum; /* batch sizes of one run */
    float score_threshold;   /* the model gives no detection with a lower score */
    const char *input_kind;  /* "uint8", "float255" or "normalized" */
    const char *channels;    /* "rgb" or "bgr": the network's order, not the one you must pass */
    const char *resize;      /* "letterbox", "center" or "stretch" */
    const char *nms;         /* "static", "onnx", "plugin"; or "none": libeffdet does the NMS */
    const char *backend;     /* the runtime that runs the model */
    const char *device;      /* the device that it runs on */
} effdet_info;

/* A picture in the caller's memory, which is only read. `data` points at its first row. The next
 * row begins `stride` bytes later, or earlier if stride is negative; a stride of 0 means that there
 * is no gap between rows. */
typedef struct effdet_image {
    const void *data;
    int32_t width, height;
    ptrdiff_t stride;
    int32_t format; /* effdet_pixel_format */
    int32_t memory; /* effdet_memory */
} effdet_image;

/* A detection: the corners of its box in pixels of the picture, clipped to the picture. */
typedef struct effdet_row {
    float x1, y1, x2, y2;
    float score;
    int32_t class_index;
} effdet_row;

typedef struct effdet_detect_options {
    size_t struct_size;
    float score_threshold; /* 0 means the model's own threshold */
    int32_t reserved;
    void *cuda_stream; /* TensorRT queues its work on it; NULL: on a stream of the detector's own */
} effdet_detect_options;

/* The version of this interface that the library was built with, and the library's own version. */
EFFDET_API int32_t effdet_abi_version(void);
EFFDET_API const char *effdet_version(void);

/* The error of this thread's last call, or "" if the call succeeded. The text is valid until this
 * thread's next call; effdet_close does not change it. */
EFFDET_API const char *effdet_last_error(void);

/* "ok", "invalid argument", ... */
EFFDET_API const char *effdet_status_name(effdet_status status);

/* Opens an exported model; the path is in UTF-8. options may be NULL.
 *
 * The runtime's library is the file that options->library names. If that is NULL, it is the file
 * that the environment variable EFFDET_ONNXRUNTIME_LIBRARY, EFFDET_OPENVINO_LIBRARY or
 * EFFDET_TENSORRT_LIBRARY names. If the variable is not set, the library is searched in the
 * system's library path. */
EFFDET_API effdet_status effdet_open(const char *path, const effdet_open_options *options,
                                     effdet_detector **detector);

/* Releases a detector; NULL is harmless. */
EFFDET_API void effdet_close(effdet_detector *detector);

/* Fills `info`; its texts are valid until the detector is closed. */
EFFDET_API effdet_status effdet_get_info(const effdet_detector *detector, effdet_info *info);

/* A JSON object with backend, device, and the spec that is stored with the model. It is valid until
 * the detector is closed; NULL if detector is NULL. */
EFFDET_API const char *effdet_describe(const effdet_detector *detector);

/* The name and the COCO category_id of a class; NULL and -1 for a class that does not exist. */
EFFDET_API const char *effdet_class_name(const effdet_detector *detector, int32_t class_index);
EFFDET_API int32_t effdet_class_category(const effdet_detector *detector, int32_t class_index);

/* Detects in `image_count` pictures, which may differ in size and format.
 *
 * rows must have room for image_count * rows_per_image rows, counts for image_count numbers. The
 * rows of picture i begin at rows[i * rows_per_image], best score first, and counts[i] is their
 * number. If a picture has more than rows_per_image rows, the best ones are kept;
 * info.max_detections is always enough. If there are more pictures than the runtime takes at once,
 * the model runs several times. After a failure rows and counts are undefined. options may be
 * NULL. */
EFFDET_API effdet_status effdet_detect(effdet_detector *detector, const effdet_image *images,
                                       size_t image_count, const effdet_detect_options *options,
                                       effdet_row *rows, size_t rows_per_image, size_t *counts);

#ifdef __cplusplus
}
#endif

#endif
