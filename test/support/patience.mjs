// Lets Node wait for Dawn without keeping a core busy. While anything is under way, Dawn asks Node
// for the next turn of its event loop, again and again, and looks whether it is done. That takes
// half of the processor time of a test that compiles. Here, after a few turns, Dawn gets the next
// one a millisecond later. This is a set-up file of vitest, and programs that tests start take it
// by `node --import`.

/** Milliseconds of a wait in which Dawn looks as often as it likes: most waits are over by then. */
const EAGER = 0.5;

const { setImmediate: soon } = globalThis;
let isTurn = false;
let since = 0;

/** Dawn's turns are functions without a source. @param {unknown} call */
const isNative = (call) =>
  /\{\s*\[native code\]\s*\}$/.test(Function.prototype.toString.call(call));

/** @param {(...given: unknown[]) => void} call @param {unknown[]} given */
function patient(call, ...given) {
  if (!isNative(call)) return soon(call, ...given);
  const now = performance.now();
  // A turn that asks for a turn goes on with the same wait.
  if (!isTurn) since = now;
  const turn = () => {
    isTurn = true;
    try {
      call(...given);
    } finally {
      isTurn = false;
    }
  };
  return now - since < EAGER ? soon(turn) : setTimeout(turn, 1);
}

// The files of a process may share the function.
if (soon.name !== patient.name) {
  globalThis.setImmediate = /** @type {typeof setImmediate} */ (
    /** @type {unknown} */ (Object.assign(patient, { __promisify__: soon.__promisify__ }))
  );
}
