// The types of what callers give to an operator of ONNX.

import type { Tensor } from "../../index.ts";

/** A model's graph as an attribute: FlexAttention's `score_mod` and `prob_mod`. */
export interface OnnxGraph {
  readonly [member: string]: unknown;
}

/** The kinds of attributes. A flag is 0 or 1, or a boolean. */
export interface AttributeKinds {
  readonly float: number;
  readonly int: number;
  readonly flag: boolean;
  readonly ints: readonly number[];
  readonly string: string;
  readonly graph: OnnxGraph;
}

export type Kinds = Readonly<Record<string, keyof AttributeKinds>>;

/**
 * One input of an operator: a tensor on the GPU; or, for integers and booleans that the host knows
 * (lengths, positions, flags), a number or a list of them, which may be a typed array,
 * BigInt64Array included. An optional input that is left out is null or undefined. int64 is i32 on
 * the GPU, bool is u8.
 */
export type OnnxInput =
  | Tensor
  | number
  | bigint
  | boolean
  | readonly (number | bigint | boolean)[]
  | Int32Array
  | Uint32Array
  | Uint8Array
  | Int8Array
  | Int16Array
  | Uint16Array
  | BigInt64Array
  | BigUint64Array
  | null
  | undefined;

/** A whole number or a list of them, as callers give them; BigInts are int64. */
type Given<Kind> = Kind extends number
  ? number | bigint
  : Kind extends readonly number[]
    ? readonly (number | bigint)[] | Int32Array | BigInt64Array
    : Kind;

/** Attributes as a caller gives them. null means that one is absent. */
export type OnnxAttributes<K extends Kinds = Kinds> = {
  readonly [Name in keyof K]?:
    | (K[Name] extends "flag" ? boolean | 0 | 1 | 0n | 1n : Given<AttributeKinds[K[Name]]>)
    | null;
};

/** The options of a call, beside inputs and attributes. */
export interface OnnxRun {
  /** The operator's version. Default: the newest one known. */
  readonly opset?: number;
  /**
   * The wanted outputs: how many of the first ones, or a flag for each. Optional ones cost nothing
   * unless they are asked for. Default: those that the operator always has.
   */
  readonly outputs?: number | readonly boolean[];
  /** The device that the outputs go to, if no input is a tensor. */
  readonly device?: GPUDevice;
}
