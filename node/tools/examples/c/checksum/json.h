/* The part of JSON that a small tool needs: fields of an object, strings in, strings out. Nothing is copied until a
 * string is decoded, and nothing recurses, so a deeply nested text costs no stack. */
#ifndef JSON_H
#define JSON_H

#include <stdbool.h>
#include <stddef.h>

/* A value inside a text, with nothing around it. */
struct json {
  const char *at;
  size_t length;
};

/* The value of a field, or false when this is no object or has no such field. */
bool json_field(struct json object, const char *name, struct json *value);

/* A string's characters in UTF-8, to be freed; NULL when the value is no string. */
char *json_string(struct json value, size_t *length);

/* Prints a string with its quotes. */
void json_print(const char *text, size_t length);

#endif
