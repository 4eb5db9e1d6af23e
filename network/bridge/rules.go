package bridge

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// tableName is that of our nftables table.
const tableName = "duplex"

func table() *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyIPv4, Name: tableName}
}

// addRules makes our table anew, in one transaction:
//
//	table ip duplex {
//		chain postrouting { type nat hook postrouting priority srcnat;
//			ip saddr NETWORK oifname != "duplex0" masquerade }
//		chain forward { type filter hook forward priority filter;
//			oifname "duplex0" iifname != "duplex0" ct state established,related accept
//			oifname "duplex0" iifname != "duplex0" drop }
//	}
//
// The host routes for the bridge; nobody else is to reach it by that.
func addRules(network netip.Prefix) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	c.AddTable(table())
	c.DelTable(table())
	t := c.AddTable(table())
	nat := c.AddChain(&nftables.Chain{Name: "postrouting", Table: t, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
	forward := c.AddChain(&nftables.Chain{Name: "forward", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter})
	from := network.Masked().Addr().As4()
	c.AddRule(&nftables.Rule{Table: t, Chain: nat, Exprs: slices.Concat(
		[]expr.Any{
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: networkBits / 8},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: from[:networkBits/8]},
		},
		device(expr.MetaKeyOIFNAME, expr.CmpOpNeq),
		[]expr.Any{&expr.Masq{}},
	)})
	inward := slices.Concat(device(expr.MetaKeyOIFNAME, expr.CmpOpEq), device(expr.MetaKeyIIFNAME, expr.CmpOpNeq))
	answers := expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED
	c.AddRule(&nftables.Rule{Table: t, Chain: forward, Exprs: slices.Concat(inward,
		[]expr.Any{
			&expr.Ct{Register: 1, Key: expr.CtKeySTATE},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(answers), Xor: make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
			&expr.Verdict{Kind: expr.VerdictAccept},
		})})
	c.AddRule(&nftables.Rule{Table: t, Chain: forward, Exprs: slices.Concat(inward, []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}})})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables: make the table %s: %w", tableName, err)
	}
	return nil
}

// device matches the bridge as the interface of that direction.
func device(key expr.MetaKey, op expr.CmpOp) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, Name)
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: name}}
}

// delRules removes our table, if there is one.
func delRules() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	c.AddTable(table())
	c.DelTable(table())
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables: remove the table %s: %w", tableName, err)
	}
	return nil
}
