/* What stable Rust cannot define: functions with `...`, and those that take a va_list.
 *
 * They format here and hand bytes on; nothing of the library's state is seen from here.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <event2/buffer.h>
#include <event2/util.h>

/* Longest text that is formatted without memory from the heap, in bytes with its final 0. */
enum { ON_STACK = 512 };

int evutil_vsnprintf(char *buf, size_t buflen, const char *format, va_list ap)
{
	int length;
	if (!buflen)
		return 0;
	length = vsnprintf(buf, buflen, format, ap);
	buf[buflen - 1] = '\0';
	return length;
}

int evutil_snprintf(char *buf, size_t buflen, const char *format, ...)
{
	int length;
	va_list ap;
	va_start(ap, format);
	length = evutil_vsnprintf(buf, buflen, format, ap);
	va_end(ap);
	return length;
}

int evbuffer_add_vprintf(struct evbuffer *buf, const char *fmt, va_list ap)
{
	char near[ON_STACK], *text = near;
	int length, result = -1;
	va_list again;
	va_copy(again, ap);
	length = vsnprintf(near, sizeof(near), fmt, again);
	va_end(again);
	if (length < 0)
		return -1;
	if ((size_t)length >= sizeof(near)) {
		text = malloc((size_t)length + 1);
		if (!text)
			return -1;
		va_copy(again, ap);
		if (vsnprintf(text, (size_t)length + 1, fmt, again) != length)
			length = -1;
		va_end(again);
	}
	if (length >= 0 && evbuffer_add(buf, text, (size_t)length) == 0)
		result = length;
	if (text != near)
		free(text);
	return result;
}

int evbuffer_add_printf(struct evbuffer *buf, const char *fmt, ...)
{
	int length;
	va_list ap;
	va_start(ap, fmt);
	length = evbuffer_add_vprintf(buf, fmt, ap);
	va_end(ap);
	return length;
}
