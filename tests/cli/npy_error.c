/* npy_error.c - for shell tests: how far one float32 .npy file is from another.
 *
 *     npy_error GOT WANT [FIRST ROWS]      compares rows FIRST .. FIRST + ROWS - 1 of WANT with GOT
 *
 * Prints max |got - want| / max |want|. Exit status 1, with a reason on stderr: not version 1.0,
 * not '<f4' in C order, other shapes, anything not finite. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct matrix {
    size_t rows, cols;
    float *values;
} matrix;

static int cannot(const char *path, const char *why)
{
    fprintf(stderr, "%s: %s\n", path, why);
    return 1;
}

static int load(matrix *m, const char *path)
{
    unsigned char lead[10];
    char header[4096];
    FILE *f = fopen(path, "rb");
    if (!f || fread(lead, 1, 10, f) != 10 || memcmp(lead, "\x93NUMPY\x01\x00", 8) != 0)
        return cannot(path, "no .npy file of version 1.0");
    const size_t n = lead[8] + 256u * lead[9];
    if (n >= sizeof header || fread(header, 1, n, f) != n || header[n - 1] != '\n' || (n + 10) % 64 != 0)
        return cannot(path, "the header does not end in a newline at a multiple of 64");
    header[n] = '\0';
    const char *shape = strstr(header, "'shape': (");
    if (!strstr(header, "'descr': '<f4'") || !strstr(header, "'fortran_order': False") || !shape ||
        sscanf(shape, "'shape': (%zu, %zu)", &m->rows, &m->cols) != 2)
        return cannot(path, header);
    m->values = malloc(m->rows * m->cols * sizeof(float));
    if (!m->values || fread(m->values, sizeof(float), m->rows * m->cols, f) != m->rows * m->cols || fgetc(f) != EOF)
        return cannot(path, "not as long as its shape says");
    fclose(f);
    return 0;
}

int main(int argc, char **argv)
{
    matrix got, want;
    double difference = 0, largest = 0;
    if (argc != 3 && argc != 5)
        return 2;
    if (load(&got, argv[1]) || load(&want, argv[2]))
        return 1;
    const size_t first = argc == 5 ? strtoul(argv[3], NULL, 10) : 0;
    const size_t rows = argc == 5 ? strtoul(argv[4], NULL, 10) : want.rows;
    if (got.cols != want.cols || got.rows != rows || first + rows > want.rows) {
        fprintf(stderr, "got [%zu, %zu], expected [%zu, %zu]\n", got.rows, got.cols, rows, want.cols);
        return 1;
    }
    const float *w = want.values + first * want.cols;
    for (size_t i = 0; i < rows * got.cols; i++) {
        if (!isfinite(got.values[i]))
            return cannot(argv[1], "a value is not finite");
        difference = fmax(difference, fabs((double)got.values[i] - (double)w[i]));
        largest = fmax(largest, fabs((double)w[i]));
    }
    printf("%.3g\n", difference / largest);
    free(got.values);
    free(want.values);
    return 0;
}
