//go:build without

package main

import "github.com/pocketbase/pocketbase"

func addPlugin(*pocketbase.PocketBase) {}
