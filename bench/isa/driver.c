// A Vulkan driver that compiles for an AMD GPU that is not there. Mesa's RADV can (RADV_FORCE_FAMILY), but what records and
// submits work has no hardware behind it and crashes; this one hands everything to RADV except that.
//
// Built by compiler.ts: gcc -O2 -shared -fPIC -fvisibility=hidden -o driver.so driver.c -ldl

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void (*Function)(void);
typedef Function (*Lookup)(void *, const char *);

static void *radv;
static Lookup radv_instance_lookup;
static Lookup radv_device_lookup;

static void load_radv(void) {
  if (radv) return;
  radv = dlopen("libvulkan_radeon.so", RTLD_NOW | RTLD_LOCAL);
  if (!radv) {
    fprintf(stderr, "driver: %s\n", dlerror());
    abort();
  }
  radv_instance_lookup = (Lookup)dlsym(radv, "vk_icdGetInstanceProcAddr");
}

static uint64_t succeed(void) { return 0; }

static uint64_t empty_results(void *device, void *pool, uint32_t first, uint32_t count, size_t size, void *data,
                              uint64_t stride, uint32_t flags) {
  if (data) memset(data, 0, size);
  return 0;
}

static int needs_hardware(const char *name) {
  static const char *const names[] = {
      "vkBeginCommandBuffer", "vkEndCommandBuffer", "vkResetCommandBuffer", "vkQueueSubmit", "vkQueueSubmit2",
      "vkQueueSubmit2KHR",    "vkQueueWaitIdle",    "vkDeviceWaitIdle",     "vkWaitForFences", "vkGetFenceStatus",
      "vkResetFences",        "vkResetCommandPool", "vkQueueBindSparse",    "vkWaitSemaphores", "vkWaitSemaphoresKHR",
  };
  if (strncmp(name, "vkCmd", 5) == 0) return 1;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    if (strcmp(name, names[i]) == 0) return 1;
  }
  return 0;
}

static Function device_lookup(void *device, const char *name);

static Function replaced(const char *name, Function found) {
  if (!found) return found;
  if (strcmp(name, "vkGetDeviceProcAddr") == 0) {
    radv_device_lookup = (Lookup)found;
    return (Function)device_lookup;
  }
  if (strcmp(name, "vkGetQueryPoolResults") == 0) return (Function)empty_results;
  return needs_hardware(name) ? (Function)succeed : found;
}

static Function device_lookup(void *device, const char *name) {
  return replaced(name, radv_device_lookup(device, name));
}

#define EXPORTED __attribute__((visibility("default")))

EXPORTED Function vk_icdGetInstanceProcAddr(void *instance, const char *name) {
  load_radv();
  return replaced(name, radv_instance_lookup(instance, name));
}

EXPORTED Function vk_icdGetPhysicalDeviceProcAddr(void *instance, const char *name) {
  load_radv();
  Lookup found = (Lookup)dlsym(radv, "vk_icdGetPhysicalDeviceProcAddr");
  return found ? found(instance, name) : 0;
}

EXPORTED int vk_icdNegotiateLoaderICDInterfaceVersion(uint32_t *version) {
  load_radv();
  int (*found)(uint32_t *) = (int (*)(uint32_t *))dlsym(radv, "vk_icdNegotiateLoaderICDInterfaceVersion");
  return found ? found(version) : 0;
}
