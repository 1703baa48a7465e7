// Reads and writes as much as a decoding step reads: what memory can do, beside what attention gets of it.

struct Copy {
  vec4s: u32,
  grid_x: u32,  // workgroups along x of the dispatch, which is folded into two dimensions
}

@group(0) @binding(0) var<uniform> copy: Copy;
@group(0) @binding(1) var<storage, read> source: array<vec4u>;
@group(0) @binding(2) var<storage, read_write> copied: array<vec4u>;

const WG_SIZE = 64u;

@compute @workgroup_size(WG_SIZE)
fn main(@builtin(workgroup_id) workgroup_id: vec3u, @builtin(local_invocation_index) lane: u32) {
  let index = (workgroup_id.y * copy.grid_x + workgroup_id.x) * WG_SIZE + lane;
  if (index < copy.vec4s) {
    copied[index] = source[index];
  }
}
