package replica

import (
	"github.com/pocketbase/pocketbase/core"
	"github.com/pocketbase/pocketbase/tools/hook"
)

// An appliedApp is the app with hooks of its own for what makes realtime events: those of the app itself may do
// what is to be done once, by the node that leads.
type appliedApp struct {
	core.App

	create, update, updated, delete, deleted hook.Hook[*core.ModelEvent]
	notUpdated, notDeleted                   hook.Hook[*core.ModelErrorEvent]

	collectionUpdate, collectionUpdated, collectionDeleted hook.Hook[*core.CollectionEvent]

	serve hook.Hook[*core.ServeEvent] // never triggered: PocketBase binds its routes once more
}

func (a *appliedApp) OnModelAfterCreateSuccess(tags ...string) *hook.TaggedHook[*core.ModelEvent] {
	return hook.NewTaggedHook(&a.create, tags...)
}

func (a *appliedApp) OnModelUpdate(tags ...string) *hook.TaggedHook[*core.ModelEvent] {
	return hook.NewTaggedHook(&a.update, tags...)
}

func (a *appliedApp) OnModelAfterUpdateSuccess(tags ...string) *hook.TaggedHook[*core.ModelEvent] {
	return hook.NewTaggedHook(&a.updated, tags...)
}

func (a *appliedApp) OnModelAfterUpdateError(tags ...string) *hook.TaggedHook[*core.ModelErrorEvent] {
	return hook.NewTaggedHook(&a.notUpdated, tags...)
}

func (a *appliedApp) OnModelDelete(tags ...string) *hook.TaggedHook[*core.ModelEvent] {
	return hook.NewTaggedHook(&a.delete, tags...)
}

func (a *appliedApp) OnModelAfterDeleteSuccess(tags ...string) *hook.TaggedHook[*core.ModelEvent] {
	return hook.NewTaggedHook(&a.deleted, tags...)
}

func (a *appliedApp) OnModelAfterDeleteError(tags ...string) *hook.TaggedHook[*core.ModelErrorEvent] {
	return hook.NewTaggedHook(&a.notDeleted, tags...)
}

func (a *appliedApp) OnCollectionUpdate(tags ...string) *hook.TaggedHook[*core.CollectionEvent] {
	return hook.NewTaggedHook(&a.collectionUpdate, tags...)
}

func (a *appliedApp) OnCollectionAfterUpdateSuccess(tags ...string) *hook.TaggedHook[*core.CollectionEvent] {
	return hook.NewTaggedHook(&a.collectionUpdated, tags...)
}

func (a *appliedApp) OnCollectionAfterDeleteSuccess(tags ...string) *hook.TaggedHook[*core.CollectionEvent] {
	return hook.NewTaggedHook(&a.collectionDeleted, tags...)
}

func (a *appliedApp) OnServe() *hook.Hook[*core.ServeEvent] { return &a.serve }

// Applied returns an app whose hooks are triggered on this node by what another one wrote and this one applies, so
// that its realtime events come: OnModelUpdate and OnModelDelete before, OnModelAfterCreateSuccess,
// OnModelAfterUpdateSuccess, OnModelAfterDeleteSuccess or the errors of the latter two behind, and
// OnCollectionUpdate, OnCollectionAfterUpdateSuccess and OnCollectionAfterDeleteSuccess. All its other hooks are those of the app that the
// node is registered with, and so is the app of these events. PocketBase's own realtime events are bound to them when the app serves. A hook
// that keeps some from being sent must be bound here, too.
//
// Several changes of one record by one transaction are told as one. What can't be told ends the streams of events, and is told as
// an update of every collection. Nothing is told while nobody has such a stream, or had one lately.
func (n *Node) Applied() core.App { return n.applied }
