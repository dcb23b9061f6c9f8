import time, sys
import pytest
from django.db import connection
from tests import factory
from annotate import scores, uncertain, comparisons, counts as counts_mod
from annotate.models import *
pytestmark = pytest.mark.django_db
def timed(what, f, n=3):
    t=[]
    for _ in range(n):
        a=time.perf_counter(); r=f(); t.append(time.perf_counter()-a)
    print(what, f"{sorted(t)[n//2]*1000:.1f} ms ->", r, flush=True)
def test_scale(capsys):
  with capsys.disabled():
    p = factory.project(overlap=1); p.scored_by = run = factory.reward_run(p, metrics={"heads":4}); p.save()
    one = factory.open_comparison(p); factory.ranking(one)
    N=100_000
    cur = connection.cursor()
    cur.execute("SELECT column_name FROM information_schema.columns WHERE table_name='annotate_comparison' ORDER BY ordinal_position")
    cols=[r[0] for r in cur.fetchall()]
    cur.execute("SET CONSTRAINTS ALL IMMEDIATE")
    cur.execute("ALTER TABLE annotate_comparison DROP CONSTRAINT comparison_message_once_an_iteration")
    def copies(start, n, **over):
        sel=", ".join(over.get(c, f"{start}+g" if c=="id" else c) for c in cols)
        cur.execute(f"INSERT INTO annotate_comparison ({', '.join(cols)}) SELECT {sel} FROM annotate_comparison, generate_series(0,{n-1}) g WHERE id={one.pk}")
        cur.execute(f"INSERT INTO annotate_candidate (comparison_id, completion_id, original) SELECT {start}+g, completion_id, false FROM annotate_candidate, generate_series(0,{n-1}) g WHERE comparison_id={one.pk}")
    copies(1000000, N)
    cur.execute(f"INSERT INTO annotate_score (run_id, candidate_id, reward, spread) SELECT {run.pk}, id, random(), 0.1 FROM annotate_candidate")
    wait=dict(state="'sampling'", opened_at="null", closed_at="null")
    for n in (400, 4000, 20000, 100000):
        cur.execute("DELETE FROM annotate_candidate WHERE comparison_id >= 5000000"); cur.execute("DELETE FROM annotate_comparison WHERE id>=5000000")
        copies(5000000, n, pool="null", **wait) if False else copies(5000000, n, pool_id="5000000+4*(g/4)", **wait)
        cur.execute("ANALYZE")
        timed(f"choose_ready {n} waiting, none scored", uncertain.choose_ready)
        timed(f"missing 64", lambda: len(scores.missing(project=p, run=run, limit=64)))
        timed(f"counts", lambda: scores.counts(project=p, run=run))
        timed("repair", comparisons.repair)
    q=uncertain
    from django.test.utils import CaptureQueriesContext
    with CaptureQueriesContext(connection) as c: uncertain.choose_ready()
    cur.execute("EXPLAIN ANALYZE "+c.captured_queries[0]["sql"]); print("\n".join(r[0] for r in cur.fetchall()))
