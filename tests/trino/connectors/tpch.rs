//! The 22 questions of TPC-H, in our own SQL.
//!
//! Each asks what the specification's query of that number asks, of `tpch` with standard column
//! names and decimals. Parameters are chosen so that even the smallest scale has an answer: a query
//! without rows would prove little. Every ORDER BY names enough columns to leave no ties.
//! without rows would prove little. Every ORDER BY names enough columns to leave no ties.

use crate::compare::Order::Total;
use crate::queries::Query;

const fn q(name: &'static str, sql: &'static str) -> Query {
    Query {
        name,
        order: Total,
        sql,
    }
}

pub const TPCH: &[Query] = &[
    q(
        "Q1 pricing summary",
        "SELECT l_returnflag, l_linestatus, sum(l_quantity), sum(l_extendedprice),
             sum(l_extendedprice * (1 - l_discount)),
             sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)),
             avg(l_quantity), avg(l_extendedprice), avg(l_discount), count(*)
         FROM lineitem WHERE l_shipdate <= DATE '1998-12-01' - INTERVAL '75' DAY
         GROUP BY l_returnflag, l_linestatus ORDER BY l_returnflag, l_linestatus",
    ),
    q(
        "Q2 minimum cost supplier",
        "WITH offers AS (
             SELECT ps_partkey, ps_supplycost, s_acctbal, s_name, s_phone, n_name
             FROM partsupp JOIN supplier ON s_suppkey = ps_suppkey
                 JOIN nation ON n_nationkey = s_nationkey
                 JOIN region ON r_regionkey = n_regionkey WHERE r_name = 'EUROPE')
         SELECT o.s_acctbal, o.s_name, o.n_name, p_partkey, p_mfgr, o.s_phone
         FROM part JOIN offers o ON o.ps_partkey = p_partkey
         WHERE p_size = 15 AND p_type LIKE '%BRASS'
             AND o.ps_supplycost = (SELECT min(ps_supplycost) FROM offers x
                 WHERE x.ps_partkey = p_partkey)
         ORDER BY o.s_acctbal DESC, o.n_name, o.s_name, p_partkey LIMIT 100",
    ),
    q(
        "Q3 shipping priority",
        "SELECT l_orderkey, sum(l_extendedprice * (1 - l_discount)) AS revenue, o_orderdate,
             o_shippriority
         FROM lineitem JOIN orders ON o_orderkey = l_orderkey
             JOIN customer ON c_custkey = o_custkey
         WHERE c_mktsegment = 'MACHINERY' AND o_orderdate < DATE '1995-03-20'
             AND l_shipdate > DATE '1995-03-20'
         GROUP BY l_orderkey, o_orderdate, o_shippriority
         ORDER BY revenue DESC, o_orderdate, l_orderkey LIMIT 10",
    ),
    q(
        "Q4 order priority checking",
        "SELECT o_orderpriority, count(*) FROM orders
         WHERE o_orderdate >= DATE '1995-04-01' AND o_orderdate < DATE '1995-07-01'
             AND o_orderkey IN (SELECT l_orderkey FROM lineitem
                 WHERE l_commitdate < l_receiptdate)
         GROUP BY o_orderpriority ORDER BY o_orderpriority",
    ),
    q(
        "Q5 local supplier volume",
        "SELECT n_name, sum(l_extendedprice * (1 - l_discount)) AS revenue
         FROM region JOIN nation ON n_regionkey = r_regionkey
             JOIN customer ON c_nationkey = n_nationkey
             JOIN orders ON o_custkey = c_custkey
             JOIN lineitem ON l_orderkey = o_orderkey
             JOIN supplier ON s_suppkey = l_suppkey AND s_nationkey = c_nationkey
         WHERE r_name = 'AMERICA' AND o_orderdate BETWEEN DATE '1995-01-01' AND DATE '1996-12-31'
         GROUP BY n_name ORDER BY revenue DESC, n_name",
    ),
    q(
        "Q6 forecast revenue change",
        "SELECT sum(l_extendedprice * l_discount) FROM lineitem
         WHERE l_shipdate >= DATE '1995-01-01' AND l_shipdate < DATE '1996-01-01'
             AND l_discount BETWEEN 0.04 AND 0.06 AND l_quantity < 25",
    ),
    q(
        "Q7 volume shipping",
        "SELECT origin.n_name AS a, target.n_name AS b, year(l_shipdate) AS y,
             sum(l_extendedprice * (1 - l_discount))
         FROM lineitem JOIN supplier ON s_suppkey = l_suppkey
             JOIN orders ON o_orderkey = l_orderkey JOIN customer ON c_custkey = o_custkey
             JOIN nation origin ON origin.n_nationkey = s_nationkey
             JOIN nation target ON target.n_nationkey = c_nationkey
         WHERE l_shipdate BETWEEN DATE '1995-01-01' AND DATE '1996-12-31'
             AND (origin.n_name, target.n_name) IN (('CHINA', 'PERU'), ('PERU', 'CHINA'))
         GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
    ),
    q(
        "Q8 national market share",
        "WITH sold AS (
             SELECT year(o_orderdate) AS y, l_extendedprice * (1 - l_discount) AS volume,
                 home.n_name AS seller
             FROM part JOIN lineitem ON l_partkey = p_partkey
                 JOIN supplier ON s_suppkey = l_suppkey
                 JOIN nation home ON home.n_nationkey = s_nationkey
                 JOIN orders ON o_orderkey = l_orderkey
                 JOIN customer ON c_custkey = o_custkey
                 JOIN nation abroad ON abroad.n_nationkey = c_nationkey
                 JOIN region ON r_regionkey = abroad.n_regionkey
             WHERE r_name = 'ASIA' AND p_type LIKE 'STANDARD%STEEL')
         SELECT y, sum(CASE WHEN seller IN ('INDIA', 'JAPAN', 'PERU') THEN volume ELSE 0 END)
             / sum(volume) FROM sold GROUP BY y ORDER BY y",
    ),
    q(
        "Q9 product type profit",
        "SELECT n_name, year(o_orderdate) AS y,
             sum(l_extendedprice * (1 - l_discount) - ps_supplycost * l_quantity)
         FROM lineitem JOIN part ON p_partkey = l_partkey
             JOIN partsupp ON ps_partkey = l_partkey AND ps_suppkey = l_suppkey
             JOIN supplier ON s_suppkey = l_suppkey JOIN nation ON n_nationkey = s_nationkey
             JOIN orders ON o_orderkey = l_orderkey
         WHERE p_name LIKE '%lavender%' GROUP BY 1, 2 ORDER BY 1, 2 DESC",
    ),
    q(
        "Q10 returned items",
        "SELECT c_custkey, c_name, sum(l_extendedprice * (1 - l_discount)) AS lost, c_acctbal,
             n_name, c_address, c_phone
         FROM lineitem JOIN orders ON o_orderkey = l_orderkey
             JOIN customer ON c_custkey = o_custkey JOIN nation ON n_nationkey = c_nationkey
         WHERE l_returnflag = 'R' AND o_orderdate >= DATE '1994-02-01'
             AND o_orderdate < DATE '1994-05-01'
         GROUP BY c_custkey, c_name, c_acctbal, n_name, c_address, c_phone
         ORDER BY lost DESC, c_custkey LIMIT 20",
    ),
    q(
        "Q11 important stock",
        "WITH stock AS (
             SELECT ps_partkey, sum(ps_supplycost * ps_availqty) AS worth
             FROM partsupp JOIN supplier ON s_suppkey = ps_suppkey
                 JOIN nation ON n_nationkey = s_nationkey
             WHERE n_name IN ('FRANCE', 'KENYA') GROUP BY ps_partkey)
         SELECT ps_partkey, worth FROM stock
         WHERE worth > (SELECT sum(worth) * 0.005 FROM stock) ORDER BY worth DESC, ps_partkey",
    ),
    q(
        "Q12 shipping modes and order priority",
        "SELECT l_shipmode, count_if(o_orderpriority IN ('1-URGENT', '2-HIGH')),
             count_if(o_orderpriority NOT IN ('1-URGENT', '2-HIGH'))
         FROM lineitem JOIN orders ON o_orderkey = l_orderkey
         WHERE l_shipmode IN ('RAIL', 'TRUCK') AND l_commitdate < l_receiptdate
             AND l_shipdate < l_commitdate AND year(l_receiptdate) = 1995
         GROUP BY l_shipmode ORDER BY l_shipmode",
    ),
    q(
        "Q13 customer distribution",
        "WITH counted AS (
             SELECT c_custkey, count(o_orderkey) AS n FROM customer
                 LEFT JOIN orders ON o_custkey = c_custkey
                     AND o_comment NOT LIKE '%pending%deposits%'
             GROUP BY c_custkey)
         SELECT n, count(*) AS customers FROM counted GROUP BY n ORDER BY customers DESC, n DESC",
    ),
    q(
        "Q14 promotion effect",
        "SELECT 100 * sum(IF(p_type LIKE 'PROMO%', l_extendedprice * (1 - l_discount), 0))
             / sum(l_extendedprice * (1 - l_discount))
         FROM part JOIN lineitem ON l_partkey = p_partkey
         WHERE l_shipdate >= DATE '1996-03-01' AND l_shipdate < DATE '1996-04-01'",
    ),
    q(
        "Q15 top supplier",
        "WITH revenue AS (
             SELECT l_suppkey AS k, sum(l_extendedprice * (1 - l_discount)) AS total
             FROM lineitem WHERE l_shipdate >= DATE '1997-01-01'
                 AND l_shipdate < DATE '1997-04-01' GROUP BY l_suppkey)
         SELECT s_suppkey, s_name, s_address, s_phone, total
         FROM revenue JOIN supplier ON s_suppkey = k
         WHERE total = (SELECT max(total) FROM revenue) ORDER BY s_suppkey",
    ),
    q(
        "Q16 parts and suppliers",
        "SELECT p_brand, p_type, p_size, count(DISTINCT ps_suppkey) AS suppliers
         FROM part JOIN partsupp ON ps_partkey = p_partkey
         WHERE p_brand <> 'Brand#21' AND p_type NOT LIKE 'SMALL%'
             AND p_size IN (3, 9, 14, 23, 36, 45, 49, 50)
             AND ps_suppkey NOT IN (SELECT s_suppkey FROM supplier
                 WHERE s_comment LIKE '%Customer%Complaints%')
         GROUP BY p_brand, p_type, p_size ORDER BY suppliers DESC, p_brand, p_type, p_size",
    ),
    q(
        "Q17 small quantity orders",
        "SELECT sum(l.l_extendedprice) / 7, count(*) FROM lineitem l
             JOIN part ON p_partkey = l.l_partkey
         WHERE p_brand LIKE 'Brand#2%' AND p_container LIKE 'MED%'
             AND l.l_quantity < (SELECT 0.3 * avg(x.l_quantity) FROM lineitem x
                 WHERE x.l_partkey = p_partkey)",
    ),
    q(
        "Q18 large volume customers",
        "WITH large AS (SELECT l_orderkey AS k, sum(l_quantity) AS quantity FROM lineitem
             GROUP BY l_orderkey HAVING sum(l_quantity) > 230)
         SELECT c_name, c_custkey, o_orderkey, o_orderdate, o_totalprice, quantity
         FROM large JOIN orders ON o_orderkey = k JOIN customer ON c_custkey = o_custkey
         ORDER BY o_totalprice DESC, o_orderdate, o_orderkey LIMIT 100",
    ),
    q(
        "Q19 discounted revenue",
        "SELECT sum(l_extendedprice * (1 - l_discount)), count(*)
         FROM lineitem JOIN part ON p_partkey = l_partkey
         WHERE l_shipinstruct = 'DELIVER IN PERSON' AND l_shipmode IN ('AIR', 'REG AIR', 'MAIL')
             AND ((p_brand LIKE 'Brand#1%' AND p_container LIKE 'SM%'
                     AND l_quantity BETWEEN 1 AND 16 AND p_size BETWEEN 1 AND 10)
                 OR (p_brand LIKE 'Brand#3%' AND p_container LIKE 'MED%'
                     AND l_quantity BETWEEN 10 AND 30 AND p_size BETWEEN 1 AND 20)
                 OR (p_brand LIKE 'Brand#5%' AND p_container LIKE 'LG%'
                     AND l_quantity BETWEEN 20 AND 40 AND p_size BETWEEN 1 AND 30))",
    ),
    q(
        "Q20 potential part promotion",
        "WITH shipped AS (
             SELECT l_partkey AS p, l_suppkey AS s, 0.5 * sum(l_quantity) AS half
             FROM lineitem WHERE year(l_shipdate) = 1995 GROUP BY 1, 2),
         surplus AS (
             SELECT ps_suppkey FROM partsupp JOIN shipped ON p = ps_partkey AND s = ps_suppkey
             WHERE ps_availqty > half
                 AND ps_partkey IN (SELECT p_partkey FROM part WHERE p_name LIKE 'a%'))
         SELECT s_name, s_address FROM supplier JOIN nation ON n_nationkey = s_nationkey
         WHERE s_suppkey IN (SELECT ps_suppkey FROM surplus)
             AND n_name IN ('CANADA', 'EGYPT', 'IRAN') ORDER BY s_name",
    ),
    q(
        "Q21 suppliers who kept orders waiting",
        "SELECT s_name, count(*) AS waiting FROM lineitem late
             JOIN supplier ON s_suppkey = late.l_suppkey JOIN nation ON n_nationkey = s_nationkey
             JOIN orders ON o_orderkey = late.l_orderkey
         WHERE n_name IN ('SAUDI ARABIA', 'VIETNAM') AND o_orderstatus = 'F'
             AND late.l_receiptdate > late.l_commitdate
             AND EXISTS (SELECT 1 FROM lineitem other WHERE other.l_orderkey = late.l_orderkey
                 AND other.l_suppkey <> late.l_suppkey)
             AND NOT EXISTS (SELECT 1 FROM lineitem guilty
                 WHERE guilty.l_orderkey = late.l_orderkey
                     AND guilty.l_suppkey <> late.l_suppkey
                     AND guilty.l_receiptdate > guilty.l_commitdate)
         GROUP BY s_name ORDER BY waiting DESC, s_name LIMIT 100",
    ),
    q(
        "Q22 global sales opportunity",
        "WITH reachable AS (
             SELECT substr(c_phone, 1, 2) AS code, c_custkey, c_acctbal FROM customer
             WHERE substr(c_phone, 1, 2) IN ('11', '14', '19', '22', '27', '30', '33'))
         SELECT code, count(*), sum(c_acctbal) FROM reachable r
         WHERE c_acctbal > (SELECT avg(c_acctbal) FROM reachable WHERE c_acctbal > 0)
             AND NOT EXISTS (SELECT 1 FROM orders WHERE o_custkey = r.c_custkey)
         GROUP BY code ORDER BY code",
    ),
];
