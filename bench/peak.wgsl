// Nothing but multiply-adds in registers: what the arithmetic of a device can do, beside what attention gets of it.

struct Peak {
  turns: u32,
  factor: f32,  // 1 and 1, so that the sums are known; no compiler can know them
  term: f32,
}

@group(0) @binding(0) var<uniform> peak: Peak;
@group(0) @binding(1) var<storage, read_write> sums: array<vec4f>;

const WG_SIZE = 64u;
const UNROLLED = 8u;  // multiply-adds of each of the 32 chains in a turn of the loop

@compute @workgroup_size(WG_SIZE)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let factor = vec4f(peak.factor);
  let term = vec4f(peak.term);
  // Chains that do not wait for each other, and start at different numbers.
  var a = vec4f(0.0, 16.0, 32.0, 48.0) + f32(id.x % WG_SIZE);
  var b = a + 1.0;
  var c = a + 2.0;
  var d = a + 3.0;
  var e = a + 4.0;
  var f = a + 5.0;
  var g = a + 6.0;
  var h = a + 7.0;
  for (var turn = 0u; turn < peak.turns; turn++) {
    for (var i = 0u; i < UNROLLED; i++) {
      a = fma(a, factor, term);
      b = fma(b, factor, term);
      c = fma(c, factor, term);
      d = fma(d, factor, term);
      e = fma(e, factor, term);
      f = fma(f, factor, term);
      g = fma(g, factor, term);
      h = fma(h, factor, term);
    }
  }
  sums[id.x] = a + b + c + d + e + f + g + h;
}
