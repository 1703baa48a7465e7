// A device for many runs, one after the other: kept so that pipelines are shared, and replaced when
// it is lost. It works in a page, in Node and in Deno alike.

/** Keeps a device, hears the errors that nobody catches, and counts compilations. */
export class KeptDevice {
  readonly #request: () => Promise<GPUDevice>;
  #device: Promise<GPUDevice> | undefined;
  #errors: string[] = [];
  #compiled = 0;

  constructor(request: () => Promise<GPUDevice>) {
    this.#request = request;
  }

  /** Kernels compiled so far. */
  get compiled(): number {
    return this.#compiled;
  }

  /** Returns the device, or a new one if the last was lost. */
  get(): Promise<GPUDevice> {
    this.#device ??= this.#request().then((device) => this.#watched(device));
    return this.#device;
  }

  /** Runs with the device. Throws for an error of the GPU that nobody caught meanwhile. */
  async run<Result>(work: (device: GPUDevice) => Promise<Result>): Promise<Result> {
    this.#errors = [];
    const result = await work(await this.get());
    if (this.#errors.length)
      throw new Error(`GPU errors that nobody caught: ${this.#errors.join("; ")}`);
    return result;
  }

  #watched(device: GPUDevice): GPUDevice {
    const compile = device.createComputePipelineAsync.bind(device);
    device.createComputePipelineAsync = (descriptor) => {
      this.#compiled++;
      return compile(descriptor);
    };
    device.addEventListener("uncapturederror", (event) => this.#errors.push(event.error.message));
    device.lost.then(() => {
      this.#device = undefined;
    });
    return device;
  }
}
