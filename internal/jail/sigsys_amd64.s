#include "textflag.h"

// sigsys is the handler of SIGSYS, called by the kernel on the thread's signal
// stack: DI is the signal, SI its siginfo_t, DX its ucontext_t. It writes the
// first 32 bytes of the former and the 17 general registers of the latter (at
// offset 40) to the report, and ends the process. It uses nothing of Go's
// runtime, whose state it may have interrupted anywhere.
TEXT ·sigsys(SB),NOSPLIT|NOFRAME,$0
	SUBQ	$64, SP
	MOVQ	SI, 0(SP)	// struct iovec[2]
	MOVQ	$32, 8(SP)
	LEAQ	40(DX), AX
	MOVQ	AX, 16(SP)
	MOVQ	$136, 24(SP)
	MOVQ	·reportFD(SB), DI
	MOVQ	SP, SI
	MOVQ	$2, DX
	MOVQ	$20, AX	// writev
	SYSCALL
	MOVQ	$159, DI	// 128 + SIGSYS
	MOVQ	$231, AX	// exit_group
	SYSCALL
	INT	$3

// sigsysPC is the address of sigsys itself: a Go func value would lead to a
// wrapper that expects a goroutine.
DATA ·sigsysPC(SB)/8, $·sigsys(SB)
GLOBL ·sigsysPC(SB), RODATA, $8
