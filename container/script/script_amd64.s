#include "textflag.h"

// What Program is made of; never called in this process. It knows no Go: the
// registers are its own.
//
// It maps the script and makes its calls: BX is the header, R12 the call at hand,
// R13 its flags. The layout of both is script.go's.
TEXT ·interpreter(SB), NOSPLIT|NOFRAME, $0
	MOVL	$9, AX	// mmap(base, size, PROT_READ|PROT_WRITE, MAP_SHARED|MAP_FIXED, fd, 0)
	MOVL	$0x70000000, DI
	MOVL	$0x1000000, SI
	MOVL	$3, DX
	MOVL	$0x11, R10
	MOVL	$0x5ca1ab1e, R8	// in its place Program puts the descriptor
	XORL	R9, R9
	SYSCALL
	MOVL	$0x70000000, BX
	CMPQ	AX, BX
	JNE	exit
	MOVQ	0(BX), R12

next:
	MOVQ	R12, 8(BX)	// for who wants to know how far it came
	MOVQ	0(R12), AX
	MOVQ	8(R12), DI
	MOVQ	16(R12), SI
	MOVQ	24(R12), DX
	MOVQ	32(R12), R10
	MOVQ	40(R12), R8
	MOVQ	48(R12), R9
	MOVQ	56(R12), R13
	CMPQ	AX, $-1
	JEQ	branch

	// Arguments that are words of the script.
	BTL	$0, R13
	JCC	arg1
	MOVQ	(DI), DI
arg1:
	BTL	$1, R13
	JCC	arg2
	MOVQ	(SI), SI
arg2:
	BTL	$2, R13
	JCC	arg3
	MOVQ	(DX), DX
arg3:
	BTL	$3, R13
	JCC	arg4
	MOVQ	(R10), R10
arg4:
	BTL	$4, R13
	JCC	call
	MOVQ	(R8), R8
call:
	SYSCALL
	MOVQ	64(R12), CX
	TESTQ	CX, CX
	JEQ	check
	MOVQ	AX, (CX)
check:
	CMPQ	AX, $-4095
	JCS	done	// no error
	BTL	$8, R13
	JCS	done	// none that matters
	NEGQ	AX
	CMPQ	AX, 72(R12)
	JEQ	tolerated
	MOVQ	AX, 16(BX)
	MOVQ	R12, 24(BX)
	MOVQ	88(R12), R12
	JMP	jump
tolerated:
	MOVQ	80(R12), CX
	TESTQ	CX, CX
	JEQ	done
	MOVQ	CX, R12
	JMP	next
done:
	ADDQ	$96, R12
	JMP	next

branch:	// to R10 if the word at DI, of it the bits of SI, is DX
	MOVQ	(DI), CX
	ANDQ	SI, CX
	CMPQ	CX, DX
	JNE	done
	MOVQ	R10, R12
jump:
	TESTQ	R12, R12
	JNE	next
exit:
	MOVL	$231, AX	// exit_group(125)
	MOVL	$125, DI
	SYSCALL
	JMP	exit
	LONG	$0xdec0adde	// the end

DATA ·interpreterAt+0(SB)/8, $·interpreter(SB)
GLOBL ·interpreterAt(SB), RODATA|NOPTR, $8
