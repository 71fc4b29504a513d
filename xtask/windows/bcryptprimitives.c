/* The one library that Rust's std imports and Wine 8 lacks: random bytes, from the function that Wine has for them. */
#include <windows.h>
#include <ntsecapi.h> /* RtlGenRandom is SystemFunction036 of advapi32. */

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T length)
{
    while (length > 0) {
        ULONG part = length > 0x10000000 ? 0x10000000 : (ULONG)length;
        if (!RtlGenRandom(data, part))
            return FALSE;
        data += part;
        length -= part;
    }
    return TRUE;
}
