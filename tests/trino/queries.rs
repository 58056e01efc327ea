//! The queries: some of TPC-H, and plan shapes that TPC-H lacks.
//!
//! All run on `tpch` with standard column names and decimals, so that every result is exact and
//! does not depend on the order of addition. Where rows are compared in order, the ORDER BY leaves
//! no ties.

use crate::compare::Order;

pub struct Query {
    pub name: &'static str,
    pub order: Order,
    pub sql: &'static str,
}

impl Query {
    /// The SQL text with an amount of work: `$WORK` is a factor in the long queries, absent
    /// elsewhere.
    pub fn sized(&self, work: u32) -> String {
        self.sql.replace("$WORK", &work.to_string())
    }
}

/// Compared against the same cluster without fault-tolerant execution.
pub const COMPARED: &[Query] = &[
    Query {
        name: "Q1 pricing summary",
        order: Order::Total,
        sql: "SELECT l_returnflag, l_linestatus, sum(l_quantity), sum(l_extendedprice),
                  sum(l_extendedprice * (1 - l_discount)), avg(l_quantity),
                  avg(l_discount), count(*)
              FROM lineitem WHERE l_shipdate <= DATE '1998-09-02'
              GROUP BY 1, 2 ORDER BY 1, 2",
    },
    Query {
        name: "Q3 shipping priority",
        order: Order::Total,
        sql: "SELECT l_orderkey, sum(l_extendedprice * (1 - l_discount)) AS revenue, o_orderdate
              FROM customer JOIN orders ON c_custkey = o_custkey
                  JOIN lineitem ON l_orderkey = o_orderkey
              WHERE c_mktsegment = 'BUILDING' AND o_orderdate < DATE '1995-03-15'
                  AND l_shipdate > DATE '1995-03-15'
              GROUP BY l_orderkey, o_orderdate
              ORDER BY revenue DESC, o_orderdate, l_orderkey LIMIT 10",
    },
    Query {
        name: "Q4 order priority (semi join)",
        order: Order::Total,
        sql: "SELECT o_orderpriority, count(*) FROM orders
              WHERE o_orderdate >= DATE '1993-07-01' AND o_orderdate < DATE '1993-10-01'
                  AND EXISTS (SELECT 1 FROM lineitem
                      WHERE l_orderkey = o_orderkey AND l_commitdate < l_receiptdate)
              GROUP BY 1 ORDER BY 1",
    },
    Query {
        name: "Q5 local supplier volume (six tables)",
        order: Order::Total,
        sql: "SELECT n_name, sum(l_extendedprice * (1 - l_discount)) AS revenue
              FROM customer, orders, lineitem, supplier, nation, region
              WHERE c_custkey = o_custkey AND l_orderkey = o_orderkey AND l_suppkey = s_suppkey
                  AND c_nationkey = s_nationkey AND s_nationkey = n_nationkey
                  AND n_regionkey = r_regionkey AND r_name = 'ASIA'
                  AND o_orderdate >= DATE '1994-01-01' AND o_orderdate < DATE '1995-01-01'
              GROUP BY n_name ORDER BY revenue DESC, n_name",
    },
    Query {
        name: "Q9 product type profit",
        order: Order::Total,
        sql: "SELECT n_name, year(o_orderdate) AS o_year,
                  sum(l_extendedprice * (1 - l_discount) - ps_supplycost * l_quantity)
              FROM part, supplier, lineitem, partsupp, orders, nation
              WHERE s_suppkey = l_suppkey AND ps_suppkey = l_suppkey AND ps_partkey = l_partkey
                  AND p_partkey = l_partkey AND o_orderkey = l_orderkey
                  AND s_nationkey = n_nationkey AND p_name LIKE '%green%'
              GROUP BY 1, 2 ORDER BY 1, 2 DESC",
    },
    Query {
        name: "Q10 returned items",
        order: Order::Total,
        sql: "SELECT c_custkey, c_name, sum(l_extendedprice * (1 - l_discount)) AS revenue,
                  c_acctbal, n_name
              FROM customer, orders, lineitem, nation
              WHERE c_custkey = o_custkey AND l_orderkey = o_orderkey AND l_returnflag = 'R'
                  AND o_orderdate >= DATE '1993-10-01' AND o_orderdate < DATE '1994-01-01'
                  AND c_nationkey = n_nationkey
              GROUP BY c_custkey, c_name, c_acctbal, n_name
              ORDER BY revenue DESC, c_custkey LIMIT 20",
    },
    Query {
        name: "Q13 customer distribution (outer join)",
        order: Order::Total,
        sql: "SELECT c_count, count(*) AS custdist FROM (
                  SELECT c_custkey, count(o_orderkey) AS c_count
                  FROM customer LEFT JOIN orders ON c_custkey = o_custkey
                      AND o_comment NOT LIKE '%special%requests%'
                  GROUP BY c_custkey)
              GROUP BY c_count ORDER BY custdist DESC, c_count DESC",
    },
    Query {
        name: "Q18 large volume customers",
        order: Order::Total,
        sql: "SELECT c_name, o_orderkey, o_orderdate, o_totalprice, sum(l_quantity)
              FROM customer, orders, lineitem
              WHERE o_orderkey IN (SELECT l_orderkey FROM lineitem
                      GROUP BY l_orderkey HAVING sum(l_quantity) > 250)
                  AND c_custkey = o_custkey AND o_orderkey = l_orderkey
              GROUP BY c_name, c_custkey, o_orderkey, o_orderdate, o_totalprice
              ORDER BY o_totalprice DESC, o_orderkey LIMIT 100",
    },
    Query {
        name: "Q21 suppliers who kept orders waiting (anti join)",
        order: Order::Total,
        sql: "SELECT s_name, count(*) AS numwait
              FROM supplier, lineitem l1, orders, nation
              WHERE s_suppkey = l1.l_suppkey AND o_orderkey = l1.l_orderkey
                  AND o_orderstatus = 'F' AND l1.l_receiptdate > l1.l_commitdate
                  AND EXISTS (SELECT 1 FROM lineitem l2 WHERE l2.l_orderkey = l1.l_orderkey
                      AND l2.l_suppkey <> l1.l_suppkey)
                  AND NOT EXISTS (SELECT 1 FROM lineitem l3 WHERE l3.l_orderkey = l1.l_orderkey
                      AND l3.l_suppkey <> l1.l_suppkey AND l3.l_receiptdate > l3.l_commitdate)
                  AND s_nationkey = n_nationkey AND n_name = 'SAUDI ARABIA'
              GROUP BY s_name ORDER BY numwait DESC, s_name LIMIT 100",
    },
    Query {
        name: "all orders sorted (one ordered exchange, many pages)",
        order: Order::Total,
        sql: "SELECT o_orderkey, o_totalprice, o_comment FROM orders
              ORDER BY o_totalprice DESC, o_orderkey",
    },
    Query {
        name: "union of aggregations (a source over several exchanges)",
        order: Order::Any,
        sql: "SELECT 'order' AS kind, o_custkey AS k, count(*) AS c FROM orders GROUP BY o_custkey
              UNION ALL SELECT 'part', l_partkey, count(*) FROM lineitem GROUP BY l_partkey
              UNION ALL SELECT 'nation', c_nationkey, count(*) FROM customer GROUP BY c_nationkey",
    },
    Query {
        name: "window over a partition",
        order: Order::Any,
        sql: "SELECT o_custkey, o_orderkey FROM (SELECT o_custkey, o_orderkey, row_number() OVER
                  (PARTITION BY o_custkey ORDER BY o_totalprice DESC, o_orderkey) AS place
                  FROM orders)
              WHERE place <= 2",
    },
    Query {
        name: "limit over a join (a stage that ends early)",
        order: Order::Any,
        sql: "SELECT count(*) FROM (SELECT * FROM orders, lineitem
                  WHERE o_orderkey = l_orderkey LIMIT 12345)",
    },
    Query {
        name: "no rows",
        order: Order::Any,
        sql: "SELECT o_custkey, count(*) FROM orders, customer
              WHERE o_custkey = c_custkey AND c_acctbal > 1000000 GROUP BY 1",
    },
];

/// Long enough to lose a node during it, on most machines with `$WORK` 1. tpch binds its scans to
/// the nodes that they were planned on, so the worker has to return for this query to finish.
pub const LONG_TPCH: Query = Query {
    name: "Q18 over all orders",
    order: Order::Total,
    sql: "SELECT o_orderpriority, count(*), sum(quantity), sum(o_totalprice), max(c_name)
          FROM (SELECT l_orderkey, sum(l_quantity) AS quantity, max(l_comment) AS comment
                  FROM lineitem CROSS JOIN UNNEST(sequence(1, $WORK)) GROUP BY l_orderkey)
              JOIN orders ON l_orderkey = o_orderkey JOIN customer ON o_custkey = c_custkey
          WHERE comment <> o_comment GROUP BY o_orderpriority ORDER BY o_orderpriority",
};

/// As long, and each of its tasks can run on any node: it finishes on the remaining nodes.
pub const LONG_ANYWHERE: Query = Query {
    name: "grouping of a long sequence",
    order: Order::Total,
    sql: "SELECT k % 10 AS d, count(*), sum(c), sum(s), max(m) FROM (
              SELECT n % 1500007 AS k, count(*) AS c, sum(n) AS s, max(n) AS m
              FROM (SELECT sequential_number AS n
                  FROM TABLE(sequence(start => 1, stop => $WORK * 16000000))) GROUP BY 1)
          GROUP BY 1 ORDER BY 1",
};

/// A result larger than the buffer in which `retry-policy=QUERY` holds it back.
pub const LARGE_RESULT: Query = Query {
    name: "all orders",
    order: Order::Any,
    sql: "SELECT o_orderkey, o_custkey, o_totalprice, o_orderdate, o_clerk, o_comment FROM orders",
};
