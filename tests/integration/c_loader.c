/* Loads a SavedModel and answers for encoded images through TensorFlow's C API, as TF Serving's own loader does:
 * no Python, no Keras, no keras_transfer.
 *
 *   c_loader SAVED_MODEL INPUT_TENSOR OUTPUT_TENSOR... -- FILE...
 *
 * A tensor is named as the signature names it, operation:index. The files are one batch. Prints one line an output
 * value: OUTPUT_TENSOR, row, then the value or the row's values. Exit status 1 with one line on failure. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/tf_tstring.h"

#define MOST_OUTPUTS 16

static void fail(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

static void check(const TF_Status *status, const char *what) {
  if (TF_GetCode(status) != TF_OK) fail(what, TF_Message(status));
}

/* The output of an operation that "operation:index" names. */
static TF_Output find(TF_Graph *graph, const char *tensor) {
  const char *colon = strrchr(tensor, ':');
  char operation[512];
  if (colon == NULL || (size_t)(colon - tensor) >= sizeof(operation)) fail(tensor, "expected operation:index");
  memcpy(operation, tensor, colon - tensor);
  operation[colon - tensor] = '\0';
  TF_Output found = {TF_GraphOperationByName(graph, operation), atoi(colon + 1)};
  if (found.oper == NULL) fail(tensor, "no such operation in the graph");
  return found;
}

/* The bytes of the files as a string tensor [count]. */
static TF_Tensor *read_files(char **paths, int64_t count) {
  TF_Tensor *tensor = TF_AllocateTensor(TF_STRING, &count, 1, count * sizeof(TF_TString));
  TF_TString *rows = TF_TensorData(tensor);
  for (int64_t row = 0; row < count; ++row) {
    FILE *file = fopen(paths[row], "rb");
    if (file == NULL) fail(paths[row], "cannot be opened");
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    char *bytes = malloc(size > 0 ? size : 1);
    if (fread(bytes, 1, size, file) != (size_t)size) fail(paths[row], "cannot be read");
    fclose(file);
    TF_StringInit(&rows[row]);
    TF_StringCopy(&rows[row], bytes, size);
    free(bytes);
  }
  return tensor;
}

static void print(const char *name, const TF_Tensor *tensor) {
  int64_t rows = TF_NumDims(tensor) > 0 ? TF_Dim(tensor, 0) : 1;
  int64_t columns = rows > 0 ? TF_TensorElementCount(tensor) / rows : 0;
  const void *data = TF_TensorData(tensor);
  for (int64_t row = 0; row < rows; ++row) {
    printf("%s %lld", name, (long long)row);
    for (int64_t at = row * columns; at < (row + 1) * columns; ++at) {
      switch (TF_TensorType(tensor)) {
        case TF_FLOAT:
          printf(" %.9g", ((const float *)data)[at]);
          break;
        case TF_INT32:
          printf(" %d", ((const int32_t *)data)[at]);
          break;
        case TF_INT64:
          printf(" %lld", (long long)((const int64_t *)data)[at]);
          break;
        case TF_STRING: {
          const TF_TString *text = &((const TF_TString *)data)[at];
          printf(" %.*s", (int)TF_StringGetSize(text), TF_StringGetDataPointer(text));
          break;
        }
        default:
          fail(name, "of a type that this program does not print");
      }
    }
    printf("\n");
  }
}

int main(int argc, char **argv) {
  int dashes = 3;
  while (dashes < argc && strcmp(argv[dashes], "--") != 0) ++dashes;
  int outputs = dashes - 3;
  if (dashes >= argc || outputs < 1 || outputs > MOST_OUTPUTS)
    fail("usage", "c_loader SAVED_MODEL INPUT_TENSOR OUTPUT_TENSOR... -- FILE...");

  TF_Status *status = TF_NewStatus();
  TF_Graph *graph = TF_NewGraph();
  TF_SessionOptions *options = TF_NewSessionOptions();
  TF_Buffer *meta_graph = TF_NewBuffer();
  const char *tags[] = {"serve"};
  TF_Session *session = TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, meta_graph, status);
  check(status, "loading");
  printf("meta_graph %zu\n", meta_graph->length);

  TF_Output input = find(graph, argv[2]);
  TF_Tensor *images = read_files(argv + dashes + 1, argc - dashes - 1);
  TF_Output wanted[MOST_OUTPUTS];
  TF_Tensor *answers[MOST_OUTPUTS] = {NULL};
  for (int number = 0; number < outputs; ++number) wanted[number] = find(graph, argv[3 + number]);

  TF_SessionRun(session, NULL, &input, &images, 1, wanted, answers, outputs, NULL, 0, NULL, status);
  check(status, "running");
  for (int number = 0; number < outputs; ++number) {
    print(argv[3 + number], answers[number]);
    TF_DeleteTensor(answers[number]);
  }

  TF_DeleteTensor(images);
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteBuffer(meta_graph);
  TF_DeleteSessionOptions(options);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  return 0;
}
