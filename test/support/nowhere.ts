// A device on which everything can be made and nothing runs: what is linked and checked for a
// problem needs no GPU.

/** Makes the device. Texts of kernels that it is given go to `texts`. */
export function nowhere(texts: string[] = []): GPUDevice {
  const pass = { setPipeline() {}, setBindGroup() {}, dispatchWorkgroups() {}, end() {} };
  const device = {
    limits: {
      maxBufferSize: 2 ** 31,
      maxComputeInvocationsPerWorkgroup: 256,
      maxComputeWorkgroupsPerDimension: 65535,
      maxComputeWorkgroupStorageSize: 32768,
      minStorageBufferOffsetAlignment: 256,
      maxStorageBuffersPerShaderStage: 8,
      maxUniformBuffersPerShaderStage: 12,
      maxStorageBufferBindingSize: 2 ** 31 - 4,
      maxUniformBufferBindingSize: 2 ** 16,
    },
    features: new Set(),
    lost: new Promise(() => {}),
    queue: { writeBuffer() {}, submit() {} },
    pushErrorScope() {},
    popErrorScope: async () => null,
    createBuffer: ({ size }: GPUBufferDescriptor) => {
      const mapped = new ArrayBuffer(size);
      return { size, destroy() {}, getMappedRange: () => mapped, unmap() {} };
    },
    createShaderModule: ({ code }: GPUShaderModuleDescriptor) => {
      texts.push(code);
      return {};
    },
    createBindGroupLayout: () => ({}),
    createPipelineLayout: () => ({}),
    createBindGroup: () => ({}),
    createComputePipelineAsync: async () => ({}),
    createCommandEncoder: () => ({ beginComputePass: () => pass, finish: () => ({}) }),
  };
  return device as unknown as GPUDevice;
}
