#include "json.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *past_space(const char *at, const char *end) {
  while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r')) at++;
  return at;
}

/* The end of the string that begins here, or NULL. */
static const char *past_string(const char *at, const char *end) {
  for (at++; at < end; at++) {
    if (*at == '"') return at + 1;
    if (*at == '\\') at++;
  }
  return NULL;
}

/* The end of the value that begins here, or NULL. Brackets are counted, not matched: whoever sent the text made it. */
static const char *past_value(const char *at, const char *end) {
  size_t open = 0;
  while (at < end) {
    if (*at == '"') {
      at = past_string(at, end);
      if (!at) return NULL;
      if (open == 0) return at;
      continue;
    }
    if (*at == '{' || *at == '[') {
      open++;
    } else if (*at == '}' || *at == ']') {
      if (open == 0) return at;
      if (--open == 0) return at + 1;
    } else if (open == 0 && (*at == ',' || *at == ' ')) {
      return at;
    }
    at++;
  }
  return open == 0 ? at : NULL;
}

bool json_field(struct json object, const char *name, struct json *value) {
  const char *end = object.at + object.length, *at = past_space(object.at, end);
  if (at >= end || *at != '{') return false;
  at = past_space(at + 1, end);
  while (at < end && *at == '"') {
    const char *key = at + 1;
    if (!(at = past_string(at, end))) return false;
    size_t key_length = (size_t)(at - 1 - key);
    at = past_space(at, end);
    if (at >= end || *at != ':') return false;
    const char *start = past_space(at + 1, end);
    if (!(at = past_value(start, end))) return false;
    if (key_length == strlen(name) && memcmp(key, name, key_length) == 0) {
      *value = (struct json){start, (size_t)(at - start)};
      return true;
    }
    at = past_space(at, end);
    if (at < end && *at == ',') at = past_space(at + 1, end);
  }
  return false;
}

/* Four hexadecimal digits, or -1. */
static int32_t unit(const char *at, const char *end) {
  int32_t number = 0;
  if (end - at < 4) return -1;
  for (int i = 0; i < 4; i++) {
    char c = at[i];
    int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) return -1;
    number = number << 4 | digit;
  }
  return number;
}

static char *put_utf8(char *to, uint32_t c) {
  if (c < 0x80) {
    *to++ = (char)c;
  } else if (c < 0x800) {
    *to++ = (char)(0xc0 | c >> 6);
    *to++ = (char)(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    *to++ = (char)(0xe0 | c >> 12);
    *to++ = (char)(0x80 | (c >> 6 & 0x3f));
    *to++ = (char)(0x80 | (c & 0x3f));
  } else {
    *to++ = (char)(0xf0 | c >> 18);
    *to++ = (char)(0x80 | (c >> 12 & 0x3f));
    *to++ = (char)(0x80 | (c >> 6 & 0x3f));
    *to++ = (char)(0x80 | (c & 0x3f));
  }
  return to;
}

char *json_string(struct json value, size_t *length) {
  if (value.length < 2 || value.at[0] != '"') return NULL;
  const char *at = value.at + 1, *end = value.at + value.length - 1;
  /* An escape is never shorter than what it stands for. */
  char *text = malloc(value.length), *to = text;
  if (!text) return NULL;
  while (at < end) {
    if (*at != '\\') {
      *to++ = *at++;
      continue;
    }
    char escape = at[1];
    at += 2;
    const char *from = "bfnrt", *found = strchr(from, escape);
    if (escape == 'u') {
      int32_t c = unit(at, end);
      if (c < 0) goto broken;
      at += 4;
      if (c >= 0xd800 && c < 0xdc00 && end - at >= 6 && at[0] == '\\' && at[1] == 'u') {
        int32_t low = unit(at + 2, end);
        if (low >= 0xdc00 && low < 0xe000) {
          c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
          at += 6;
        }
      }
      /* Half of a pair is no character. */
      to = put_utf8(to, c >= 0xd800 && c < 0xe000 ? 0xfffd : (uint32_t)c);
    } else if (escape && found) {
      *to++ = "\b\f\n\r\t"[found - from];
    } else {
      *to++ = escape;
    }
  }
  *length = (size_t)(to - text);
  return text;
broken:
  free(text);
  return NULL;
}

void json_print(const char *text, size_t length) {
  putchar('"');
  for (size_t i = 0; i < length; i++) {
    unsigned char c = (unsigned char)text[i];
    if (c == '"' || c == '\\') {
      putchar('\\');
      putchar(c);
    } else if (c < 0x20) {
      printf("\\u%04x", c);
    } else {
      putchar(c);
    }
  }
  putchar('"');
}
