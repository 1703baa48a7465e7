// What RDNA2's compiler makes of the hot kernels. It is a real driver, which needs no GPU for that.

import { describe, expect, it } from "vitest";
import { compileForRdna2 } from "../../bench/isa/compiler.ts";
import { type IsaReport, parseReport } from "../../bench/isa/disassembly.ts";
import { broken, hotKernels } from "../../bench/isa/kernels.ts";
import { missingCompiler } from "../../scripts/isa.mjs";

/**
 * What RADV would print for four blocks, with a loop of three turns that has a block that is
 * branched over.
 */
const PRINTED = `
disasm:
BB0:
\ts_mov_b32 s0, 0                        ; 00
BB1:
\tv_fma_f32 v0, v1, v2, v0               ; 00
\tv_pk_fma_f16 v0, v1, v2, v0            ; 00
\tv_pk_mul_f16 v0, v1, v2                ; 00
\tv_mad_u32_u24 v6, v1, v2, v6           ; 00
\tds_read_b128 v[0:3], v4                ; 00
\tds_read2_b32 v[0:1], v4                ; 00
\ts_cbranch_execz BB3                    ; 00
BB2:
\tv_exp_f32_e32 v5, v5                   ; 00
\tv_mul_f32_e32 v5, v5, v5               ; 00
BB3:
\tv_add_f32_e32 v5, v5, v5               ; 00
\tbuffer_load_dwordx4 v[0:3], v4, s[0:3] ; 00
\ts_cbranch_scc1 BB1                     ; 00
BB4:
\ts_endpgm                               ; 00

*** SHADER STATS ***
VGPRs: 24
Spilled VGPRs: 2
LDS size: 512
Subgroups per SIMD: 16
Instructions: 15
********************
`;

describe("the instruction report", () => {
  const report = parseReport("a kernel", PRINTED);

  it("counts the instructions of a turn, and of its way around what is branched over", () => {
    const { loop, steady } = report;
    expect(loop).toMatchObject({
      all: 12,
      valu: 7,
      fma: 3,
      fmaOps: 5,
      transcendental: 1,
      ldsWords: 6,
      loads: 1,
    });
    expect(steady).toMatchObject({ all: 10, valu: 5, fma: 3, fmaOps: 5, transcendental: 0 });
    expect(report).toMatchObject({
      vgprs: 24,
      spills: 2,
      workgroupBytes: 512,
      waves: 16,
      instructions: 15,
    });
  });

  it("says what breaks a limit", () => {
    const many = { least: 1.3, count: 6 };
    expect(
      broken(report, {
        fmaShare: 0.7,
        vgprs: 20,
        workgroupBytes: 256,
        fmaPerWord: 1,
        fmaPerInstruction: many,
      }),
    ).toEqual([
      "a kernel: 2 registers spilled",
      "a kernel: 24 vector registers, at most 20 allowed",
      "a kernel: 512 bytes of workgroup memory, at most 256 allowed",
      "a kernel: 60.0 % multiply-adds, at least 70.0 % asked for",
      "a kernel: 0.83 multiply-adds a word, at least 1 asked for",
      "a kernel: 1.200 multiply-adds an instruction, at least 1.3 asked for",
    ]);
    const good: IsaReport = { ...report, spills: 0 };
    expect(
      broken(good, { fmaShare: 0.6, vgprs: 24, workgroupBytes: 512, fmaPerWord: 0.5 }),
    ).toEqual([]);
  });

  it("of every hot kernel keeps to its limits", async (context) => {
    const missing = missingCompiler();
    if (missing) context.skip(missing);
    const kernels = await hotKernels();
    const reports = compileForRdna2(kernels);
    expect(kernels.flatMap(({ limits }, index) => broken(reports[index], limits))).toEqual([]);
    for (const { vgprs, instructions } of reports) expect(vgprs * instructions).toBeGreaterThan(0);
  }, 120_000);
});
