/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The arguments of a probed function. A probe need not be on the function's first instruction, and
 * an argument may have moved to another register by then. crates/nginx-binary/src/sites/placement
 * finds the register of each, and the cookie has a byte for it: on x86-64 a value of enum reg, on
 * arm64 the register's number.
 */
#ifndef NGX_BPF_ARG_BPF_H
#define NGX_BPF_ARG_BPF_H

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
 * Each case reads the context itself, since the verifier does not accept a computed offset into it.
 * The empty asm statement keeps the compiler from merging all these reads into one.
 */
#define ARG_CASE(reg, member)                                                                      \
	case reg:                                                                                  \
		value = (member);                                                                  \
		asm volatile("# " #member : "+r"(value));                                          \
		break

/* Argument n, from 0. */
#if defined(__TARGET_ARCH_x86)
static __always_inline __u64 arg(struct pt_regs *ctx, __u64 cookie, int n)
{
	__u64 value = 0;

	switch ((cookie >> (8 * n)) & 0xff) {
		ARG_CASE(REG_AX, ctx->ax);
		ARG_CASE(REG_CX, ctx->cx);
		ARG_CASE(REG_DX, ctx->dx);
		ARG_CASE(REG_BX, ctx->bx);
		ARG_CASE(REG_BP, ctx->bp);
		ARG_CASE(REG_SI, ctx->si);
		ARG_CASE(REG_DI, ctx->di);
		ARG_CASE(REG_R8, ctx->r8);
		ARG_CASE(REG_R9, ctx->r9);
		ARG_CASE(REG_R10, ctx->r10);
		ARG_CASE(REG_R11, ctx->r11);
		ARG_CASE(REG_R12, ctx->r12);
		ARG_CASE(REG_R13, ctx->r13);
		ARG_CASE(REG_R14, ctx->r14);
		ARG_CASE(REG_R15, ctx->r15);
	}
	return value;
}
#elif defined(__TARGET_ARCH_arm64)
static __always_inline __u64 arg(struct pt_regs *ctx, __u64 cookie, int n)
{
	struct user_pt_regs *user = (void *)ctx;
	__u64 value = 0;

	switch ((cookie >> (8 * n)) & 0xff) {
		ARG_CASE(0, user->regs[0]);
		ARG_CASE(1, user->regs[1]);
		ARG_CASE(2, user->regs[2]);
		ARG_CASE(3, user->regs[3]);
		ARG_CASE(4, user->regs[4]);
		ARG_CASE(5, user->regs[5]);
		ARG_CASE(6, user->regs[6]);
		ARG_CASE(7, user->regs[7]);
		ARG_CASE(8, user->regs[8]);
		ARG_CASE(9, user->regs[9]);
		ARG_CASE(10, user->regs[10]);
		ARG_CASE(11, user->regs[11]);
		ARG_CASE(12, user->regs[12]);
		ARG_CASE(13, user->regs[13]);
		ARG_CASE(14, user->regs[14]);
		ARG_CASE(15, user->regs[15]);
		ARG_CASE(16, user->regs[16]);
		ARG_CASE(17, user->regs[17]);
		ARG_CASE(18, user->regs[18]);
		ARG_CASE(19, user->regs[19]);
		ARG_CASE(20, user->regs[20]);
		ARG_CASE(21, user->regs[21]);
		ARG_CASE(22, user->regs[22]);
		ARG_CASE(23, user->regs[23]);
		ARG_CASE(24, user->regs[24]);
		ARG_CASE(25, user->regs[25]);
		ARG_CASE(26, user->regs[26]);
		ARG_CASE(27, user->regs[27]);
		ARG_CASE(28, user->regs[28]);
		ARG_CASE(29, user->regs[29]);
		ARG_CASE(30, user->regs[30]);
	}
	return value;
}
#endif

/*
 * The address of another function of the same file. The upper half of the cookie is its distance
 * from the probed instruction; 0: it is not known.
 */
static __always_inline __u64 landmark(struct pt_regs *ctx, __u64 cookie)
{
	__s32 distance = cookie >> 32;

	return distance ? PT_REGS_IP(ctx) + (__s64)distance : 0;
}

#endif
