/** Programs over the library: the conformance program, and what a step costs. */
package rnnx.tools;
