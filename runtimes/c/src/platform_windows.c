/* Windows. Its own functions take UTF-16. */
#define WIN32_LEAN_AND_MEAN
#include "platform.h"

#include <errno.h>
#include <locale.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <wchar.h>
#include <windows.h>

static wchar_t *to_wide(const char *text)
{
    int length = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, text, -1, NULL, 0);
    wchar_t *wide = length ? calloc((size_t)length, sizeof *wide) : NULL;
    if (wide)
        MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, text, -1, wide, length);
    else
        errno = length ? ENOMEM : EILSEQ;
    return wide;
}

static char *to_utf8(const wchar_t *wide)
{
    int length = WideCharToMultiByte(CP_UTF8, 0, wide, -1, NULL, 0, NULL, NULL);
    char *text = length ? calloc((size_t)length, 1) : NULL;
    if (text)
        WideCharToMultiByte(CP_UTF8, 0, wide, -1, text, length, NULL, NULL);
    else
        errno = length ? ENOMEM : EILSEQ;
    return text;
}

bool rx_path_look(const char *path, rx_kind *kind, uint64_t *size)
{
    struct _stat64 found;
    wchar_t *wide = to_wide(path);
    bool good = wide && _wstat64(wide, &found) == 0;
    free(wide);
    if (!good)
        return false;
    *kind = (found.st_mode & _S_IFMT) == _S_IFREG ? RX_FILE : (found.st_mode & _S_IFMT) == _S_IFDIR ? RX_FOLDER : RX_OTHER;
    *size = (uint64_t)found.st_size;
    return true;
}

/* The name that an open file or folder has in the end; NULL, and errno, for none. */
static wchar_t *final_name(const wchar_t *path)
{
    HANDLE handle = CreateFileW(path, 0, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL, OPEN_EXISTING,
                                FILE_FLAG_BACKUP_SEMANTICS, NULL); /* folders too */
    if (handle == INVALID_HANDLE_VALUE) {
        DWORD reason = GetLastError();
        bool absent = reason == ERROR_FILE_NOT_FOUND || reason == ERROR_PATH_NOT_FOUND || reason == ERROR_INVALID_NAME;
        errno = absent ? ENOENT : EACCES;
        return NULL;
    }
    DWORD length = GetFinalPathNameByHandleW(handle, NULL, 0, FILE_NAME_NORMALIZED);
    wchar_t *name = calloc((size_t)length + 1, sizeof *name);
    if (name && !GetFinalPathNameByHandleW(handle, name, length + 1, FILE_NAME_NORMALIZED)) {
        free(name);
        name = NULL;
        errno = EACCES;
    }
    CloseHandle(handle);
    return name;
}

char *rx_path_real(const char *path)
{
    wchar_t *wide = to_wide(path), *name = wide ? final_name(wide) : NULL;
    char *real = name ? to_utf8(name) : NULL;
    for (char *at = real; at && *at; at++)
        if (*at == '\\')
            *at = '/';
    free(wide);
    free(name);
    return real;
}

size_t rx_path_folder(const char *path)
{
    size_t length = strlen(path);
    while (length && !strchr("/\\:", path[length - 1]))
        length--;
    return length;
}

FILE *rx_path_read(const char *path)
{
    wchar_t *wide = to_wide(path);
    FILE *file = wide ? _wfopen(wide, L"rb") : NULL;
    free(wide);
    return file;
}

void *rx_path_native(const char *path)
{
    return to_wide(path);
}

void *rx_library_open(const char *path, char *problem, size_t size)
{
    wchar_t *wide = to_wide(path);
    /* A library by its path looks for what it needs beside itself first. */
    bool is_path = rx_path_folder(path) > 0;
    HMODULE library = wide ? LoadLibraryExW(wide, NULL, is_path ? LOAD_WITH_ALTERED_SEARCH_PATH : 0) : NULL;
    free(wide);
    if (!library)
        snprintf(problem, size, "%.200s, which Windows does not load: error %lu", path, GetLastError());
    return (void *)library;
}

void *rx_library_symbol(void *library, const char *name)
{
    union {
        FARPROC found;
        void *symbol;
    } it = {GetProcAddress((HMODULE)library, name)};
    return it.symbol;
}

void rx_environment_default(const char *name, const char *value)
{
    if (!getenv(name))
        _putenv_s(name, value);
}

void *rx_aligned_take(size_t alignment, size_t size)
{
    return _aligned_malloc(size, alignment);
}

void rx_aligned_free(void *taken)
{
    _aligned_free(taken);
}

double rx_to_double(const char *text)
{
    _locale_t plain = _create_locale(LC_NUMERIC, "C");
    double number = plain ? _strtod_l(text, NULL, plain) : strtod(text, NULL);
    if (plain)
        _free_locale(plain);
    return number;
}
