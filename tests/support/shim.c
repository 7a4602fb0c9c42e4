/* Makes a local disk behave as other file systems do, for a process that is started with LD_PRELOAD. What it does is in the
   environment:
     SHIM_LINK=N     a hard link fails with the error N
     SHIM_FLOCK=N    a lock fails with the error N; with 0 everybody gets it
     SHIM_BOOT=FILE  what tells this start of the machine from another is read from FILE
     SHIM_WRITE=N    what is written to a file whose path has SHIM_WHERE in it fails with the error N
     SHIM_OPEN=N     so does making one there */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static int error_of(const char *name) {
  const char *value = getenv(name);
  return value && *value ? atoi(value) : -1;
}

static int is_there(const char *path) {
  const char *where = getenv("SHIM_WHERE");
  return where && strstr(path, where);
}

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
  int error = error_of("SHIM_LINK");
  if (error < 0)
    return ((int (*)(int, const char *, int, const char *, int))dlsym(RTLD_NEXT, "linkat"))(from_dir, from, to_dir, to, flags);
  errno = error;
  return -1;
}

int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int flock(int file, int operation) {
  int error = error_of("SHIM_FLOCK");
  if (error < 0)
    return ((int (*)(int, int))dlsym(RTLD_NEXT, "flock"))(file, operation);
  errno = error;
  return error ? -1 : 0;
}

ssize_t write(int file, const void *bytes, size_t count) {
  int error = error_of("SHIM_WRITE");
  if (error > 0) {
    char name[64], path[4096] = "";
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    if (readlink(name, path, sizeof path - 1) > 0 && is_there(path)) {
      errno = error;
      return -1;
    }
  }
  return ((ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write"))(file, bytes, count);
}

static int opened(const char *own, const char *path, int flags, mode_t mode) {
  const char *boot = getenv("SHIM_BOOT");
  int error = error_of("SHIM_OPEN");
  if (boot && strcmp(path, "/proc/sys/kernel/random/boot_id") == 0)
    path = boot;
  if (error > 0 && (flags & O_CREAT) && is_there(path)) {
    errno = error;
    return -1;
  }
  return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, own))(path, flags, mode);
}

int open(const char *path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  mode_t mode = va_arg(more, mode_t);
  va_end(more);
  return opened("open", path, flags, mode);
}

int open64(const char *path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  mode_t mode = va_arg(more, mode_t);
  va_end(more);
  return opened("open64", path, flags, mode);
}
