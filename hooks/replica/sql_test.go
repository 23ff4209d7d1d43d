package replica

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestScriptsAreTakenApart(t *testing.T) {
	t.Parallel()
	rows := []struct {
		script string
		want   []string // kind and text
	}{
		{"", nil},
		{" ; -- only\n /* comments */ ;", nil},
		{"SELECT 1", []string{"0 SELECT 1"}},
		{"select 1; delete from a;", []string{"0 select 1", "1 delete from a"}},
		{"SELECTS; DROP TABLE a", []string{"0 SELECTS", "2 DROP TABLE a"}},
		{"SELECT ';'; INSERT INTO a VALUES ('it''s;', \";\", `;`, [;])", []string{"0 SELECT ';'", "1 INSERT INTO a VALUES ('it''s;', \";\", `;`, [;])"}},
		{"UPDATE a SET b = 1 -- ; DROP TABLE c\n; DELETE FROM a", []string{"1 UPDATE a SET b = 1 -- ; DROP TABLE c", "1 DELETE FROM a"}},
		{"UPDATE a SET b = 1 /* ; */; DELETE FROM a /* no end ;", []string{"1 UPDATE a SET b = 1 /* ; */", "1 DELETE FROM a /* no end ;"}},
		{"/**/DELETE FROM a", []string{"1 /**/DELETE FROM a"}},
		{"\ufeffDELETE FROM a", []string{"1 \ufeffDELETE FROM a"}},
		{"SELECT 1;\x00DROP TABLE a", []string{"0 SELECT 1"}},
		{"DELETE FROM a WHERE b = :c; SELECT @d", []string{"1 DELETE FROM a WHERE b = :c", "0 SELECT @d"}},
		{"SELECT $c('); DROP TABLE a --'", []string{"0 SELECT $c(')", "2 DROP TABLE a --'"}},
		{"SELECT :c::d::e(;), @f( ; ')", []string{"0 SELECT :c::d::e(;), @f(", "0 ')"}},
		{" \f DELETE FROM a\u00a0; SELECT \v", []string{"1 DELETE FROM a\u00a0", "0 SELECT \v"}},
		{"EXPLAIN DELETE FROM a", []string{"0 EXPLAIN DELETE FROM a"}},
		{"VALUES (1)", []string{"0 VALUES (1)"}},

		{"WITH x AS (DELETE) SELECT 1", []string{"0 WITH x AS (DELETE) SELECT 1"}},
		{"WITH x AS (SELECT 1), replace AS (SELECT 2) DELETE FROM a", []string{"1 WITH x AS (SELECT 1), replace AS (SELECT 2) DELETE FROM a"}},
		{"WITH replace AS (SELECT 2) SELECT * FROM replace", []string{"0 WITH replace AS (SELECT 2) SELECT * FROM replace"}},
		{"WITH x AS (SELECT 1) REPLACE INTO a SELECT * FROM x", []string{"1 WITH x AS (SELECT 1) REPLACE INTO a SELECT * FROM x\nWHERE true"}},
		{"WITH \"INSERT\" AS (SELECT 1) VALUES (1)", []string{"0 WITH \"INSERT\" AS (SELECT 1) VALUES (1)"}},
		{"INSERT INTO a SELECT * FROM main.b AS c", []string{"1 INSERT INTO a SELECT * FROM main.b AS c\nWHERE true"}},
		{"REPLACE INTO a SELECT * FROM b -- c", []string{"1 REPLACE INTO a SELECT * FROM b -- c\nWHERE true"}},
		{"INSERT INTO a SELECT * FROM b LIMIT 1", []string{"1 INSERT INTO a SELECT * FROM b LIMIT 1"}},
		{"INSERT INTO a (b) SELECT * FROM c", []string{"1 INSERT INTO a (b) SELECT * FROM c"}},
		{"UPDATE fail SET a = b OR fail", []string{"1 UPDATE fail SET a = b OR fail"}},

		{"CREATE TABLE \"as\" (a); CREATE TEMP TABLE b AS SELECT 1", []string{"2 CREATE TABLE \"as\" (a)", "0 CREATE TEMP TABLE b AS SELECT 1"}},
		{"CREATE TABLE a (b AS (c))", []string{"2 CREATE TABLE a (b AS (c))"}},
		{"CREATE VIEW a AS SELECT 1", []string{"2 CREATE VIEW a AS SELECT 1"}},
		{"DROP TABLE IF EXISTS sqlite_stat1; DROP TABLE main.sqlite_stat4", []string{"0 DROP TABLE IF EXISTS sqlite_stat1", "0 DROP TABLE main.sqlite_stat4"}},
		{"CREATE TRIGGER a AFTER INSERT ON b BEGIN SELECT CASE 1 WHEN 1 THEN 2 END; DELETE FROM c; END; DELETE FROM b",
			[]string{"2 CREATE TRIGGER a AFTER INSERT ON b BEGIN SELECT CASE 1 WHEN 1 THEN 2 END; DELETE FROM c; END", "1 DELETE FROM b"}},
		{"create temp trigger a after insert on b begin delete from c; end /* ; */ ; delete from b",
			[]string{"0 create temp trigger a after insert on b begin delete from c; end /* ; */", "1 delete from b"}},
		{"EXPLAIN QUERY PLAN CREATE TRIGGER a AFTER INSERT ON b BEGIN DELETE FROM c; END", []string{"0 EXPLAIN QUERY PLAN CREATE TRIGGER a AFTER INSERT ON b BEGIN DELETE FROM c; END"}},
		{"CREATE TABLE trigger_ (a); DELETE FROM b", []string{"2 CREATE TABLE trigger_ (a)", "1 DELETE FROM b"}},

		{"SAVEPOINT A; RELEASE SAVEPOINT [a]; ROLLBACK TO \"a\"; ROLLBACK TRANSACTION TO SAVEPOINT 'a'",
			[]string{"4 SAVEPOINT A A", "5 RELEASE SAVEPOINT [a] A", "6 ROLLBACK TO \"a\" A", "6 ROLLBACK TRANSACTION TO SAVEPOINT 'a' A"}},
		{"SAVEPOINT \"a\"\"b\"; SAVEPOINT é", []string{"4 SAVEPOINT \"a\"\"b\" A\"B", "4 SAVEPOINT é é"}},
		{"VACUUM; VACUUM INTO 'a'; ANALYZE; REINDEX", []string{"3 VACUUM", "0 VACUUM INTO 'a'", "0 ANALYZE", "0 REINDEX"}},
		{"PRAGMA user_version; PRAGMA main.table_info('a'); PRAGMA wal_checkpoint(TRUNCATE); PRAGMA optimize = 2",
			[]string{"0 PRAGMA user_version", "0 PRAGMA main.table_info('a')", "0 PRAGMA wal_checkpoint(TRUNCATE)", "0 PRAGMA optimize = 2"}},
	}
	for _, row := range rows {
		var got []string
		for _, s := range parse(row.script) {
			got = append(got, trim(fmt.Sprint(int(s.kind), " ", s.sql, " ", s.name)))
		}
		if !slices.Equal(got, row.want) {
			t.Errorf("%q:\ngot  %q\nwant %q", row.script, got, row.want)
		}
	}
}

// Taking a script apart neither loses nor changes anything of it.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"SELECT 1; DELETE FROM a", "CREATE TRIGGER a BEGIN b; END; c", "'a''b' [c] `d` \"e\" -- f\n /* g */ ;", "\ufeff;\x00", "PRAGMA a.b = c", "ROLLBACK TO", "WITH ( ) REPLACE"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, script string) {
		rest := script
		for _, s := range parse(script) {
			s.sql = strings.TrimSuffix(s.sql, "\nWHERE true")
			i := strings.Index(rest, s.sql)
			if i < 0 || trim(s.sql) == "" {
				t.Fatalf("%q isn't in %q", s.sql, rest)
			}
			rest = rest[i+len(s.sql):]
		}
	})
}
