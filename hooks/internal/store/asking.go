package store

import "github.com/pocketbase/pocketbase/core"

// Asking tells who may create requests, which cost the operator money.
type Asking struct {
	Open    bool `json:"open"`    // others than superusers may
	Limited bool `json:"limited"` // by a rate limit of PocketBase's

	Rule  *string            `json:"-"` // the create rule; nil if closed
	Limit core.RateLimitRule `json:"-"`
}

// ReadAsking returns what rule and settings say.
func ReadAsking(app core.App) (asking Asking) {
	if requests, err := app.FindCachedCollectionByNameOrId(Requests); err == nil {
		asking.Rule = requests.CreateRule
	}
	limits := app.Settings().RateLimits
	asking.Limit, asking.Limited = limits.FindRateLimitRule(
		[]string{Requests + ":create", "*:create"}, core.RateLimitRuleAudienceAll, core.RateLimitRuleAudienceAuth)
	asking.Limited = asking.Limited && limits.Enabled
	asking.Open = asking.Rule != nil
	return asking
}
