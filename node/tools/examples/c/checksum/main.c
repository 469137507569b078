/* checksum: a tool as a WASI command. It reads MCP's messages from standard input, one a line, and answers each request
 * with a line on standard output; it stops at the end of its input. */
#include "checksum.h"
#include "json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char SERVER[] =
    "{\"protocolVersion\":\"2025-06-18\",\"capabilities\":{\"tools\":{}},"
    "\"serverInfo\":{\"name\":\"checksum\",\"version\":\"0.1.0\"}}";

static const char TOOLS[] =
    "{\"tools\":[{\"name\":\"checksum\",\"description\":\"The SHA-256 or CRC-32 of a text, in hexadecimal.\","
    "\"inputSchema\":{\"type\":\"object\",\"required\":[\"text\"],\"properties\":{"
    "\"text\":{\"type\":\"string\",\"description\":\"The text, of which the UTF-8 bytes are counted\"},"
    "\"algorithm\":{\"enum\":[\"sha256\",\"crc32\"],\"default\":\"sha256\"}}},"
    "\"annotations\":{\"readOnlyHint\":true,\"idempotentHint\":true,\"openWorldHint\":false}}]}";

static void answer(struct json id, const char *result) {
  printf("{\"jsonrpc\":\"2.0\",\"id\":%.*s,\"result\":%s}\n", (int)id.length, id.at, result);
}

/* -32602 is JSON-RPC's "invalid params", -32601 its "method not found". */
static void refuse(struct json id, int code, const char *why) {
  printf("{\"jsonrpc\":\"2.0\",\"id\":%.*s,\"error\":{\"code\":%d,\"message\":", (int)id.length, id.at, code);
  json_print(why, strlen(why));
  printf("}}\n");
}

static void call(struct json id, struct json parameters) {
  struct json name, arguments, value;
  size_t name_length = 0, length = 0, algorithm_length = 0;
  char *called = json_field(parameters, "name", &name) ? json_string(name, &name_length) : NULL;
  int known = called && name_length == 8 && memcmp(called, "checksum", 8) == 0;
  free(called);
  if (!known) return refuse(id, -32602, "the only tool is `checksum`");
  if (!json_field(parameters, "arguments", &arguments) || !json_field(arguments, "text", &value))
    return refuse(id, -32602, "`text` is missing");
  char *text = json_string(value, &length);
  if (!text) return refuse(id, -32602, "`text` is not a string");
  char *algorithm = json_field(arguments, "algorithm", &value) ? json_string(value, &algorithm_length) : NULL;
  int crc = algorithm && algorithm_length == 5 && memcmp(algorithm, "crc32", 5) == 0;
  free(algorithm);

  char hex[SHA256_TEXT], result[256];
  if (crc)
    crc32_hex(text, length, hex);
  else
    sha256_hex(text, length, hex);
  free(text);
  snprintf(result, sizeof result,
           "{\"content\":[{\"type\":\"text\",\"text\":\"%s\"}],"
           "\"structuredContent\":{\"algorithm\":\"%s\",\"hex\":\"%s\",\"bytes\":%zu}}",
           hex, crc ? "crc32" : "sha256", hex, length);
  answer(id, result);
}

static void handle(struct json message) {
  struct json id, value;
  size_t length = 0;
  /* A notification has no id and wants no answer. */
  if (!json_field(message, "id", &id)) return;
  char *method = json_field(message, "method", &value) ? json_string(value, &length) : NULL;
  if (!method) return refuse(id, -32600, "a request has a method");
  if (length == 10 && memcmp(method, "initialize", 10) == 0)
    answer(id, SERVER);
  else if (length == 10 && memcmp(method, "tools/list", 10) == 0)
    answer(id, TOOLS);
  else if (length == 10 && memcmp(method, "tools/call", 10) == 0 && json_field(message, "params", &value))
    call(id, value);
  else
    refuse(id, -32601, "this server has `initialize`, `tools/list` and `tools/call`");
  free(method);
}

int main(void) {
  char *line = NULL;
  size_t capacity = 0;
  ssize_t length;
  while ((length = getline(&line, &capacity, stdin)) > 0) handle((struct json){line, (size_t)length});
  free(line);
  return 0;
}
