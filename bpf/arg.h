/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The arguments of a probed function. A probe need not sit on the function's first instruction,
 * and an argument may have moved to another register by then: src/site.rs finds out where it is
 * and says so in the cookie, one byte an argument, in the order of enum reg.
 */
#ifndef NGX_BPF_ARG_H
#define NGX_BPF_ARG_H

enum reg {
	REG_AX = 0,
	REG_CX,
	REG_DX,
	REG_BX,
	REG_SP,
	REG_BP,
	REG_SI,
	REG_DI,
	REG_R8,
	REG_R9,
	REG_R10,
	REG_R11,
	REG_R12,
	REG_R13,
	REG_R14,
	REG_R15,
};

/*
 * Each case reads the context itself, since the verifier takes no computed offset into it; the
 * comment that is no instruction keeps the compiler from making one read of them all.
 */
#define ARG_CASE(reg, member)                                                                      \
	case reg:                                                                                  \
		value = ctx->member;                                                               \
		asm volatile("# " #member : "+r"(value));                                          \
		break

static __always_inline __u64 arg(struct pt_regs *ctx, __u64 cookie, int n)
{
	__u64 value = 0;

	switch ((cookie >> (8 * n)) & 0xff) {
		ARG_CASE(REG_AX, ax);
		ARG_CASE(REG_CX, cx);
		ARG_CASE(REG_DX, dx);
		ARG_CASE(REG_BX, bx);
		ARG_CASE(REG_BP, bp);
		ARG_CASE(REG_SI, si);
		ARG_CASE(REG_DI, di);
		ARG_CASE(REG_R8, r8);
		ARG_CASE(REG_R9, r9);
		ARG_CASE(REG_R10, r10);
		ARG_CASE(REG_R11, r11);
		ARG_CASE(REG_R12, r12);
		ARG_CASE(REG_R13, r13);
		ARG_CASE(REG_R14, r14);
		ARG_CASE(REG_R15, r15);
	}
	return value;
}

#endif
