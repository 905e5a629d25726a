// SPDX-License-Identifier: Apache-2.0

// cnirun calls CNI plugins for a network namespace through libcni, as a runtime does. Engines in
// Debian 12 send ADD and DEL; this one sends CHECK as well.
//
//	cnirun add|check|del|validate CONFIGURATION-LIST NETNS CONTAINER-ID INTERFACE [CAPABILITIES]
//
// CAPABILITIES is the JSON of runtimeConfig's keys. Plugins come from $CNI_PATH, results are kept
// in $CNI_CACHE.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/libcni"
)

func run(arguments []string) error {
	if len(arguments) < 5 {
		return fmt.Errorf("usage: cnirun COMMAND LIST NETNS ID INTERFACE [CAPABILITIES]")
	}
	network, err := libcni.ConfListFromFile(arguments[1])
	if err != nil {
		return err
	}
	attachment := &libcni.RuntimeConf{
		NetNS: arguments[2], ContainerID: arguments[3], IfName: arguments[4],
	}
	if len(arguments) > 5 {
		if err := json.Unmarshal([]byte(arguments[5]), &attachment.CapabilityArgs); err != nil {
			return err
		}
	}
	path := filepath.SplitList(os.Getenv("CNI_PATH"))
	plugins := libcni.NewCNIConfigWithCacheDir(path, os.Getenv("CNI_CACHE"), nil)
	ctx := context.Background()
	switch arguments[0] {
	case "add":
		result, err := plugins.AddNetworkList(ctx, network, attachment)
		if err != nil {
			return err
		}
		return result.Print()
	case "check":
		return plugins.CheckNetworkList(ctx, network, attachment)
	case "del":
		return plugins.DelNetworkList(ctx, network, attachment)
	case "validate":
		capabilities, err := plugins.ValidateNetworkList(ctx, network)
		if err == nil {
			fmt.Println(capabilities)
		}
		return err
	}
	return fmt.Errorf("no such command: %s", arguments[0])
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
