/* How functions of the library are declared. */
#ifndef EVENT2_VISIBILITY_H_INCLUDED_
#define EVENT2_VISIBILITY_H_INCLUDED_

#define EVENT2_EXPORT_SYMBOL __attribute__((visibility("default")))
#define EVENT2_CORE_EXPORT_SYMBOL EVENT2_EXPORT_SYMBOL
#define EVENT2_EXTRA_EXPORT_SYMBOL EVENT2_EXPORT_SYMBOL

#endif
