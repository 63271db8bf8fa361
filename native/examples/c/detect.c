/* detect MODEL PICTURE.ppm: prints class, score and box of the detections with
 * a score of 0.3 or more. */
#include <effdet.h>
#include <stdio.h>
#include <stdlib.h>

/* Returns the pixels of a binary PPM file with 8 bits per color, or NULL. */
static unsigned char *read_ppm(const char *path, int *width, int *height) {
    FILE *file = fopen(path, "rb");
    unsigned char *pixels = NULL;
    if (file != NULL && fscanf(file, "P6 %d %d 255", width, height) == 2 && *width > 0 &&
        *height > 0 && *width < 20000 && *height < 20000) {
        size_t size = (size_t)*width * (size_t)*height * 3;
        pixels = malloc(size);
        fgetc(file);
        if (pixels != NULL && fread(pixels, 1, size, file) != size) {
            free(pixels);
            pixels = NULL;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return pixels;
}

int main(int argc, char **argv) {
    effdet_detector *detector = NULL;
    effdet_detect_options options = {0};
    effdet_row rows[100];
    size_t count = 0, row;
    effdet_image image = {0};
    unsigned char *pixels;

    if (argc != 3) {
        fprintf(stderr, "usage: detect MODEL PICTURE.ppm\n");
        return 2;
    }
    if (effdet_open(argv[1], NULL, &detector) != EFFDET_OK) {
        fprintf(stderr, "%s\n", effdet_last_error());
        return 1;
    }
    pixels = read_ppm(argv[2], &image.width, &image.height);
    if (pixels == NULL) {
        fprintf(stderr, "'%s' is missing or is not a binary PPM file (P6).\n", argv[2]);
        return 1;
    }
    image.data = pixels;
    image.format = EFFDET_RGB;
    options.struct_size = sizeof options;
    options.score_threshold = 0.3F;
    if (effdet_detect(detector, &image, 1, &options, rows, 100, &count) != EFFDET_OK) {
        fprintf(stderr, "%s\n", effdet_last_error());
        return 1;
    }
    for (row = 0; row < count; ++row) {
        printf("%s %.4f %.2f %.2f %.2f %.2f\n", effdet_class_name(detector, rows[row].class_index),
               rows[row].score, rows[row].x1, rows[row].y1, rows[row].x2, rows[row].y2);
    }
    free(pixels);
    effdet_close(detector);
    return 0;
}
