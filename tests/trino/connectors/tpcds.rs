//! Queries over `tpcds` in the style of TPC-DS; none is the benchmark's text.
//!
//! Each is named after the number of the query whose plan it resembles: the same tables and the
//! same kinds of joins, set operations, windows, roll-ups and subqueries, but another question and
//! other parameters, so that the smallest scale has an answer. Values that must not depend on the
//! order of addition are decimals; rows are compared as multisets where ties are possible.

use crate::compare::Order::{self, Any, Total};
use crate::queries::Query;

const fn q(name: &'static str, order: Order, sql: &'static str) -> Query {
    Query { name, order, sql }
}

pub const TPCDS: &[Query] = &[
    q(
        "like Q1: customers who return more than is usual in their store",
        Any,
        "WITH returned AS (
             SELECT sr_customer_sk AS c, sr_store_sk AS s, sum(sr_return_amt) AS amount
             FROM store_returns JOIN date_dim ON d_date_sk = sr_returned_date_sk
             WHERE d_year = 2000 GROUP BY 1, 2)
         SELECT c_customer_id, amount FROM returned r JOIN store ON s_store_sk = s
             JOIN customer ON c_customer_sk = c
         WHERE amount > (SELECT avg(amount) * 1.2 FROM returned x WHERE x.s = r.s)",
    ),
    q(
        "like Q2: sales by weekday, one year against the next",
        Total,
        "WITH sold AS (
             SELECT ws_sold_date_sk AS d, ws_ext_sales_price AS price FROM web_sales
             UNION ALL SELECT cs_sold_date_sk, cs_ext_sales_price FROM catalog_sales),
         weeks AS (
             SELECT d_week_seq AS w, d_year AS y, d_day_name AS day, sum(price) AS total
             FROM sold JOIN date_dim ON d_date_sk = d GROUP BY 1, 2, 3)
         SELECT a.w, a.day, a.total, b.total FROM weeks a
             JOIN weeks b ON b.w = a.w + 53 AND b.day = a.day
         WHERE a.y = 1999 AND b.y = 2000 ORDER BY a.w, a.day",
    ),
    q(
        "like Q3: brands by year",
        Any,
        "SELECT d_year, i_brand_id, i_brand, sum(ss_ext_sales_price)
         FROM store_sales JOIN date_dim ON d_date_sk = ss_sold_date_sk
             JOIN item ON i_item_sk = ss_item_sk
         WHERE d_moy = 12 AND i_manufact_id < 200 GROUP BY 1, 2, 3",
    ),
    q(
        "like Q4: customers whose catalog spending grew more than in the store",
        Any,
        "WITH spent AS (
             SELECT 's' AS way, ss_customer_sk AS c, d_year AS y, sum(ss_net_paid) AS paid
             FROM store_sales JOIN date_dim ON d_date_sk = ss_sold_date_sk GROUP BY 1, 2, 3
             UNION ALL
             SELECT 'c', cs_bill_customer_sk, d_year, sum(cs_net_paid)
             FROM catalog_sales JOIN date_dim ON d_date_sk = cs_sold_date_sk GROUP BY 1, 2, 3)
         SELECT c_customer_id, c_last_name FROM customer
             JOIN spent s1 ON s1.c = c_customer_sk AND s1.way = 's' AND s1.y = 2000
             JOIN spent s2 ON s2.c = c_customer_sk AND s2.way = 's' AND s2.y = 2001
             JOIN spent c1 ON c1.c = c_customer_sk AND c1.way = 'c' AND c1.y = 2000
             JOIN spent c2 ON c2.c = c_customer_sk AND c2.way = 'c' AND c2.y = 2001
         WHERE s1.paid > 0 AND c1.paid > 0 AND c2.paid / c1.paid > s2.paid / s1.paid",
    ),
    q(
        "like Q5: profit and loss of all channels, rolled up",
        Any,
        "WITH moves AS (
             SELECT 'store' AS channel, ss_store_sk AS place, ss_sold_date_sk AS d,
                 ss_ext_sales_price AS sales, ss_net_profit AS profit, DECIMAL '0.00' AS back
             FROM store_sales
             UNION ALL SELECT 'store', sr_store_sk, sr_returned_date_sk, 0, -sr_net_loss,
                 sr_return_amt FROM store_returns
             UNION ALL SELECT 'catalog', cs_catalog_page_sk, cs_sold_date_sk,
                 cs_ext_sales_price, cs_net_profit, 0 FROM catalog_sales
             UNION ALL SELECT 'catalog', cr_catalog_page_sk, cr_returned_date_sk, 0,
                 -cr_net_loss, cr_return_amount FROM catalog_returns)
         SELECT channel, place, sum(sales), sum(back), sum(profit) FROM moves
             JOIN date_dim ON d_date_sk = d WHERE d_year = 2001 AND d_moy BETWEEN 3 AND 5
         GROUP BY ROLLUP (channel, place)",
    ),
    q(
        "like Q6: states whose customers buy expensive items of a category",
        Any,
        "SELECT ca_state, count(*) FROM store_sales JOIN customer ON c_customer_sk = ss_customer_sk
             JOIN customer_address ON ca_address_sk = c_current_addr_sk
             JOIN date_dim ON d_date_sk = ss_sold_date_sk JOIN item i ON i.i_item_sk = ss_item_sk
         WHERE d_month_seq = (SELECT max(d_month_seq) FROM date_dim
                 WHERE d_year = 2001 AND d_moy = 1)
             AND i.i_current_price > (SELECT 1.2 * avg(j.i_current_price) FROM item j
                 WHERE j.i_category = i.i_category)
         GROUP BY ca_state",
    ),
    q(
        "like Q7: averages by item for a group of buyers",
        Any,
        "SELECT i_item_id, avg(ss_quantity), avg(ss_list_price), avg(ss_coupon_amt)
         FROM store_sales JOIN customer_demographics ON cd_demo_sk = ss_cdemo_sk
             JOIN promotion ON p_promo_sk = ss_promo_sk JOIN item ON i_item_sk = ss_item_sk
         WHERE cd_gender = 'F' AND cd_marital_status = 'W' AND p_channel_email = 'N'
         GROUP BY i_item_id",
    ),
    q(
        "like Q8: stores near many preferred customers (an intersection)",
        Any,
        "SELECT s_store_name, sum(ss_net_profit) FROM store_sales
             JOIN date_dim ON d_date_sk = ss_sold_date_sk JOIN store ON s_store_sk = ss_store_sk
         WHERE d_year = 1998 AND substr(s_zip, 1, 1) IN (
             SELECT substr(ca_zip, 1, 1) FROM customer_address
             INTERSECT
             SELECT substr(ca_zip, 1, 1) FROM customer_address
                 JOIN customer ON c_current_addr_sk = ca_address_sk
             WHERE c_preferred_cust_flag = 'Y')
         GROUP BY s_store_name",
    ),
    q(
        "like Q9: buckets of quantities by scalar subqueries",
        Total,
        "SELECT
             (SELECT count(*) FROM store_sales WHERE ss_quantity BETWEEN 1 AND 20),
             (SELECT avg(ss_ext_discount_amt) FROM store_sales WHERE ss_quantity < 21),
             (SELECT count(*) FROM store_sales WHERE ss_quantity BETWEEN 21 AND 60),
             (SELECT sum(ss_net_paid) FROM store_sales WHERE ss_quantity > 60)
         FROM reason WHERE r_reason_sk = 1",
    ),
    q(
        "like Q10: demographics of those who bought in the store and elsewhere",
        Any,
        "SELECT cd_gender, cd_education_status, count(*) FROM customer c
             JOIN customer_demographics ON cd_demo_sk = c.c_current_cdemo_sk
         WHERE EXISTS (SELECT 1 FROM store_sales JOIN date_dim ON d_date_sk = ss_sold_date_sk
                 WHERE ss_customer_sk = c.c_customer_sk AND d_year = 2002)
             AND (c.c_customer_sk IN (SELECT ws_bill_customer_sk FROM web_sales)
                 OR c.c_customer_sk IN (SELECT cs_ship_customer_sk FROM catalog_sales))
         GROUP BY cd_gender, cd_education_status",
    ),
    q(
        "like Q12: share of an item in its class (a window over sums)",
        Any,
        "SELECT i_item_id, i_class, sum(ws_ext_sales_price) AS revenue,
             sum(ws_ext_sales_price) * 100 / sum(sum(ws_ext_sales_price))
                 OVER (PARTITION BY i_class)
         FROM web_sales JOIN item ON i_item_sk = ws_item_sk
             JOIN date_dim ON d_date_sk = ws_sold_date_sk
         WHERE i_category IN ('Books', 'Music') AND d_year = 1999
         GROUP BY i_item_id, i_class",
    ),
    q(
        "like Q13: averages under alternatives of buyers and places",
        Total,
        "SELECT avg(ss_quantity), avg(ss_ext_sales_price), sum(ss_ext_wholesale_cost), count(*)
         FROM store_sales JOIN store ON s_store_sk = ss_store_sk
             JOIN household_demographics ON hd_demo_sk = ss_hdemo_sk
             JOIN customer_demographics ON cd_demo_sk = ss_cdemo_sk
         WHERE (cd_marital_status = 'M' AND hd_dep_count = 3 AND ss_sales_price > 50)
             OR (cd_marital_status = 'S' AND hd_dep_count = 1 AND ss_sales_price < 100)
             OR (cd_marital_status = 'W' AND hd_dep_count = 0)",
    ),
    q(
        "like Q14: items sold in all three channels, above the average",
        Any,
        "WITH everywhere AS (
             SELECT ss_item_sk AS i FROM store_sales INTERSECT SELECT cs_item_sk FROM catalog_sales
             INTERSECT SELECT ws_item_sk FROM web_sales),
         usual AS (
             SELECT avg(x) AS a FROM (
                 SELECT ss_quantity * ss_list_price AS x FROM store_sales
                 UNION ALL SELECT cs_quantity * cs_list_price FROM catalog_sales
                 UNION ALL SELECT ws_quantity * ws_list_price FROM web_sales))
         SELECT i_brand_id, i_class_id, sum(ss_quantity * ss_list_price) AS total, count(*)
         FROM store_sales JOIN everywhere ON i = ss_item_sk JOIN item ON i_item_sk = ss_item_sk
         GROUP BY ROLLUP (i_brand_id, i_class_id)
         HAVING sum(ss_quantity * ss_list_price) > (SELECT a FROM usual)",
    ),
    q(
        "like Q16: orders shipped from more than one warehouse and never returned",
        Total,
        "SELECT count(DISTINCT cs_order_number), sum(cs_ext_ship_cost), sum(cs_net_profit)
         FROM catalog_sales a JOIN call_center ON cc_call_center_sk = cs_call_center_sk
         WHERE EXISTS (SELECT 1 FROM catalog_sales b WHERE b.cs_order_number = a.cs_order_number
                 AND b.cs_warehouse_sk <> a.cs_warehouse_sk)
             AND NOT EXISTS (SELECT 1 FROM catalog_returns
                 WHERE cr_order_number = a.cs_order_number)",
    ),
    q(
        "like Q17: bought in the store, returned, bought again from the catalog",
        Any,
        "SELECT i_item_id, s_state, count(ss_quantity), sum(ss_quantity), sum(sr_return_quantity),
             sum(cs_quantity)
         FROM store_sales JOIN store_returns ON sr_customer_sk = ss_customer_sk
                 AND sr_item_sk = ss_item_sk AND sr_ticket_number = ss_ticket_number
             JOIN catalog_sales ON cs_bill_customer_sk = sr_customer_sk
             JOIN item ON i_item_sk = ss_item_sk JOIN store ON s_store_sk = ss_store_sk
         GROUP BY i_item_id, s_state",
    ),
    q(
        "like Q18: averages over a hierarchy of places",
        Any,
        "SELECT ca_country, ca_state, ca_county, avg(cs_quantity), avg(cs_list_price), count(*)
         FROM catalog_sales JOIN customer ON c_customer_sk = cs_bill_customer_sk
             JOIN customer_address ON ca_address_sk = c_current_addr_sk
             JOIN customer_demographics ON cd_demo_sk = cs_bill_cdemo_sk
         WHERE c_birth_month IN (1, 2, 6, 9, 12) AND cd_gender = 'M'
         GROUP BY ROLLUP (ca_country, ca_state, ca_county)",
    ),
    q(
        "like Q21: stock of a warehouse before and after a day",
        Any,
        "SELECT w_warehouse_name, i_item_id,
             sum(IF(d_date < DATE '2000-03-11', inv_quantity_on_hand, 0)) AS before,
             sum(IF(d_date >= DATE '2000-03-11', inv_quantity_on_hand, 0)) AS after
         FROM inventory JOIN warehouse ON w_warehouse_sk = inv_warehouse_sk
             JOIN item ON i_item_sk = inv_item_sk JOIN date_dim ON d_date_sk = inv_date_sk
         WHERE d_date BETWEEN DATE '2000-02-10' AND DATE '2000-04-10'
             AND i_current_price BETWEEN 1 AND 5
         GROUP BY w_warehouse_name, i_item_id",
    ),
    q(
        "like Q22: average stock, rolled up over four levels",
        Any,
        "SELECT i_category, i_class, i_brand, i_product_name, avg(inv_quantity_on_hand)
         FROM inventory JOIN date_dim ON d_date_sk = inv_date_sk
             JOIN item ON i_item_sk = inv_item_sk
         WHERE d_year = 2001 AND d_moy < 4
         GROUP BY ROLLUP (i_category, i_class, i_brand, i_product_name)",
    ),
    q(
        "like Q23: best customers buying often bought items",
        Any,
        "WITH often AS (
             SELECT ss_item_sk AS i FROM store_sales JOIN date_dim ON d_date_sk = ss_sold_date_sk
             WHERE d_year IN (2000, 2001) GROUP BY ss_item_sk HAVING count(*) > 20),
         best AS (
             SELECT ss_customer_sk AS c, sum(ss_quantity * ss_sales_price) AS total
             FROM store_sales WHERE ss_customer_sk IS NOT NULL GROUP BY ss_customer_sk)
         SELECT c_last_name, c_first_name, sum(cs_quantity * cs_list_price)
         FROM catalog_sales JOIN customer ON c_customer_sk = cs_bill_customer_sk
         WHERE cs_item_sk IN (SELECT i FROM often) AND cs_bill_customer_sk IN (
             SELECT c FROM best WHERE total > (SELECT max(total) / 2 FROM best))
         GROUP BY c_last_name, c_first_name",
    ),
    q(
        "like Q27: grouping sets over states",
        Any,
        "SELECT i_item_id, s_state, grouping(s_state), avg(ss_quantity), avg(ss_sales_price)
         FROM store_sales JOIN customer_demographics ON cd_demo_sk = ss_cdemo_sk
             JOIN store ON s_store_sk = ss_store_sk JOIN item ON i_item_sk = ss_item_sk
         WHERE cd_education_status = 'College'
         GROUP BY GROUPING SETS ((i_item_id, s_state), (i_item_id), ())",
    ),
    q(
        "like Q28: six buckets side by side, with distinct counts",
        Total,
        "SELECT * FROM
             (SELECT avg(ss_list_price), count(ss_list_price), count(DISTINCT ss_list_price)
                 FROM store_sales WHERE ss_quantity BETWEEN 0 AND 5) a
             CROSS JOIN (SELECT avg(ss_list_price), count(ss_list_price),
                 count(DISTINCT ss_list_price) FROM store_sales
                 WHERE ss_quantity BETWEEN 6 AND 10) b
             CROSS JOIN (SELECT avg(ss_coupon_amt), count(DISTINCT ss_wholesale_cost)
                 FROM store_sales WHERE ss_quantity BETWEEN 11 AND 15) c",
    ),
    q(
        "like Q31: states where the web grew faster than the store",
        Any,
        "WITH s AS (
             SELECT ca_state AS state, d_qoy AS q, sum(ss_ext_sales_price) AS total
             FROM store_sales JOIN date_dim ON d_date_sk = ss_sold_date_sk
                 JOIN customer_address ON ca_address_sk = ss_addr_sk
             WHERE d_year = 2000 GROUP BY 1, 2),
         w AS (
             SELECT ca_state AS state, d_qoy AS q, sum(ws_ext_sales_price) AS total
             FROM web_sales JOIN date_dim ON d_date_sk = ws_sold_date_sk
                 JOIN customer_address ON ca_address_sk = ws_bill_addr_sk
             WHERE d_year = 2000 GROUP BY 1, 2)
         SELECT s1.state, s2.total / s1.total, w2.total / w1.total
         FROM s s1 JOIN s s2 ON s2.state = s1.state AND s2.q = 2
             JOIN w w1 ON w1.state = s1.state AND w1.q = 1
             JOIN w w2 ON w2.state = s1.state AND w2.q = 2
         WHERE s1.q = 1 AND s1.total > 0 AND w1.total > 0
             AND w2.total / w1.total > s2.total / s1.total",
    ),
    q(
        "like Q33: manufacturers over three channels",
        Any,
        "WITH wanted AS (SELECT DISTINCT i_manufact_id AS m FROM item
             WHERE i_category = 'Electronics')
         SELECT m, sum(total) FROM (
             SELECT i_manufact_id AS m, sum(ss_ext_sales_price) AS total FROM store_sales
                 JOIN item ON i_item_sk = ss_item_sk
             WHERE i_manufact_id IN (SELECT m FROM wanted) GROUP BY 1
             UNION ALL SELECT i_manufact_id, sum(cs_ext_sales_price) FROM catalog_sales
                 JOIN item ON i_item_sk = cs_item_sk
             WHERE i_manufact_id IN (SELECT m FROM wanted) GROUP BY 1
             UNION ALL SELECT i_manufact_id, sum(ws_ext_sales_price) FROM web_sales
                 JOIN item ON i_item_sk = ws_item_sk
             WHERE i_manufact_id IN (SELECT m FROM wanted) GROUP BY 1)
         GROUP BY m",
    ),
    q(
        "like Q34: customers with large baskets",
        Any,
        "SELECT c_last_name, c_first_name, ticket, n FROM (
             SELECT ss_ticket_number AS ticket, ss_customer_sk AS c, count(*) AS n
             FROM store_sales JOIN household_demographics ON hd_demo_sk = ss_hdemo_sk
             WHERE hd_vehicle_count > 0 GROUP BY 1, 2)
             JOIN customer ON c_customer_sk = c WHERE n BETWEEN 10 AND 15",
    ),
    q(
        "like Q36: margins ranked within their level of a hierarchy",
        Any,
        "SELECT i_category, i_class, margin, rank() OVER (
             PARTITION BY level, IF(level = 0, i_category) ORDER BY margin)
         FROM (SELECT i_category, i_class, grouping(i_category, i_class) AS level,
                 sum(ss_net_profit) / sum(ss_ext_sales_price) AS margin
             FROM store_sales JOIN item ON i_item_sk = ss_item_sk
             GROUP BY ROLLUP (i_category, i_class))",
    ),
    q(
        "like Q38: customers seen in every channel in a year",
        Total,
        "SELECT count(*) FROM (
             SELECT c_last_name, c_first_name, d_qoy FROM store_sales
                 JOIN date_dim ON d_date_sk = ss_sold_date_sk
                 JOIN customer ON c_customer_sk = ss_customer_sk WHERE d_year = 2000
             INTERSECT SELECT c_last_name, c_first_name, d_qoy FROM catalog_sales
                 JOIN date_dim ON d_date_sk = cs_sold_date_sk
                 JOIN customer ON c_customer_sk = cs_bill_customer_sk WHERE d_year = 2000
             EXCEPT SELECT c_last_name, c_first_name, d_qoy FROM web_sales
                 JOIN date_dim ON d_date_sk = ws_sold_date_sk
                 JOIN customer ON c_customer_sk = ws_bill_customer_sk WHERE d_year = 1998)",
    ),
    q(
        "like Q44: best and worst items of a store side by side",
        Total,
        "WITH ranked AS (
             SELECT ss_item_sk AS i, rank() OVER (ORDER BY avg(ss_net_profit), ss_item_sk) AS worst,
                 rank() OVER (ORDER BY avg(ss_net_profit) DESC, ss_item_sk) AS best
             FROM store_sales GROUP BY ss_item_sk HAVING count(*) > 10)
         SELECT b.best, x.i_product_name, y.i_product_name
         FROM ranked b JOIN ranked w ON w.worst = b.best
             JOIN item x ON x.i_item_sk = b.i JOIN item y ON y.i_item_sk = w.i
         WHERE b.best <= 20 ORDER BY b.best",
    ),
    q(
        "like Q47: months far from a year's mean, with the months before and after",
        Any,
        "WITH months AS (
             SELECT i_category, i_brand, d_year, d_moy, sum(ss_sales_price) AS total,
                 avg(sum(ss_sales_price)) OVER (PARTITION BY i_category, i_brand, d_year) AS mean,
                 lag(sum(ss_sales_price)) OVER (PARTITION BY i_category, i_brand
                     ORDER BY d_year, d_moy) AS prior,
                 lead(sum(ss_sales_price)) OVER (PARTITION BY i_category, i_brand
                     ORDER BY d_year, d_moy) AS next
             FROM store_sales JOIN item ON i_item_sk = ss_item_sk
                 JOIN date_dim ON d_date_sk = ss_sold_date_sk
             WHERE i_category IN ('Jewelry', 'Women') GROUP BY 1, 2, 3, 4)
         SELECT * FROM months WHERE d_year = 2000 AND mean > 0 AND abs(total - mean) / mean > 0.3",
    ),
    q(
        "like Q51: running totals of two channels (a full join of windows)",
        Any,
        "WITH w AS (
             SELECT ws_item_sk AS i, d_date AS d, sum(sum(ws_sales_price))
                 OVER (PARTITION BY ws_item_sk ORDER BY d_date) AS total
             FROM web_sales JOIN date_dim ON d_date_sk = ws_sold_date_sk
             WHERE d_year = 2000 GROUP BY 1, 2),
         s AS (
             SELECT ss_item_sk AS i, d_date AS d, sum(sum(ss_sales_price))
                 OVER (PARTITION BY ss_item_sk ORDER BY d_date) AS total
             FROM store_sales JOIN date_dim ON d_date_sk = ss_sold_date_sk
             WHERE d_year = 2000 AND d_moy < 7 GROUP BY 1, 2)
         SELECT coalesce(w.i, s.i) AS i, coalesce(w.d, s.d) AS d, w.total, s.total
         FROM w FULL JOIN s ON s.i = w.i AND s.d = w.d
         WHERE coalesce(w.total, 0) > coalesce(s.total, 0)",
    ),
    q(
        "like Q59: a store's week against the same week a year later",
        Any,
        "WITH weeks AS (
             SELECT d_week_seq AS w, ss_store_sk AS s, sum(ss_sales_price) AS total,
                 sum(ss_sales_price) FILTER (WHERE d_day_name = 'Sunday') AS sunday
             FROM store_sales JOIN date_dim ON d_date_sk = ss_sold_date_sk GROUP BY 1, 2)
         SELECT s_store_name, a.w, a.total, b.total, a.sunday, b.sunday
         FROM weeks a JOIN weeks b ON b.s = a.s AND b.w = a.w + 52
             JOIN store ON s_store_sk = a.s",
    ),
    q(
        "like Q64: items sold and returned, joined with themselves a year apart",
        Any,
        "WITH sold AS (
             SELECT i_item_sk AS i, i_product_name AS name, s_store_name AS store, d_year AS y,
                 count(*) AS n, sum(ss_wholesale_cost) AS cost
             FROM store_sales JOIN store_returns ON sr_item_sk = ss_item_sk
                     AND sr_ticket_number = ss_ticket_number
                 JOIN date_dim ON d_date_sk = ss_sold_date_sk
                 JOIN store ON s_store_sk = ss_store_sk JOIN item ON i_item_sk = ss_item_sk
                 JOIN customer ON c_customer_sk = ss_customer_sk
                 JOIN household_demographics ON hd_demo_sk = c_current_hdemo_sk
                 JOIN income_band ON ib_income_band_sk = hd_income_band_sk
             GROUP BY 1, 2, 3, 4)
         SELECT a.name, a.store, a.n, a.cost, b.n, b.cost
         FROM sold a JOIN sold b ON b.i = a.i AND b.store = a.store AND b.y = a.y + 1
         WHERE a.y = 1999 AND b.n <= a.n",
    ),
    q(
        "like Q67: the ten best of each category over eight rolled-up levels",
        Any,
        "SELECT * FROM (
             SELECT i_category, i_class, i_brand, d_year, d_qoy, d_moy, total,
                 row_number() OVER (PARTITION BY i_category ORDER BY total DESC, i_class, i_brand,
                     d_year, d_qoy, d_moy) AS place
             FROM (SELECT i_category, i_class, i_brand, d_year, d_qoy, d_moy,
                     sum(coalesce(ss_sales_price * ss_quantity, 0)) AS total
                 FROM store_sales JOIN date_dim ON d_date_sk = ss_sold_date_sk
                     JOIN item ON i_item_sk = ss_item_sk WHERE d_year BETWEEN 1999 AND 2000
                 GROUP BY ROLLUP (i_category, i_class, i_brand, d_year, d_qoy, d_moy)))
         WHERE place <= 10",
    ),
    q(
        "like Q72: orders that met an empty shelf (a join on an inequality)",
        Any,
        "SELECT i_item_desc, w_warehouse_name, d.d_week_seq, count_if(p_promo_sk IS NULL),
             count_if(p_promo_sk IS NOT NULL)
         FROM catalog_sales JOIN date_dim d ON d.d_date_sk = cs_sold_date_sk
             JOIN inventory ON inv_item_sk = cs_item_sk AND inv_quantity_on_hand < cs_quantity
             JOIN date_dim e ON e.d_date_sk = inv_date_sk AND e.d_week_seq = d.d_week_seq
             JOIN warehouse ON w_warehouse_sk = inv_warehouse_sk
             JOIN item ON i_item_sk = cs_item_sk LEFT JOIN promotion ON p_promo_sk = cs_promo_sk
         WHERE d.d_year = 1999 GROUP BY 1, 2, 3",
    ),
    q(
        "like Q78: sales that were never returned, per customer and item",
        Any,
        "WITH kept AS (
             SELECT ss_item_sk AS i, ss_customer_sk AS c, sum(ss_quantity) AS n
             FROM store_sales LEFT JOIN store_returns ON sr_ticket_number = ss_ticket_number
                 AND sr_item_sk = ss_item_sk
             WHERE sr_ticket_number IS NULL GROUP BY 1, 2),
         ordered AS (
             SELECT cs_item_sk AS i, cs_bill_customer_sk AS c, sum(cs_quantity) AS n
             FROM catalog_sales LEFT JOIN catalog_returns ON cr_order_number = cs_order_number
                 AND cr_item_sk = cs_item_sk
             WHERE cr_order_number IS NULL GROUP BY 1, 2)
         SELECT k.i, k.c, k.n, o.n FROM kept k JOIN ordered o ON o.i = k.i AND o.c = k.c",
    ),
    q(
        "like Q80: promoted sales less returns, over two channels",
        Any,
        "WITH net AS (
             SELECT 'store' AS channel, ss_item_sk AS i, ss_promo_sk AS p,
                 ss_ext_sales_price AS sales, coalesce(sr_return_amt, 0) AS back
             FROM store_sales LEFT JOIN store_returns ON sr_item_sk = ss_item_sk
                 AND sr_ticket_number = ss_ticket_number
             UNION ALL
             SELECT 'web', ws_item_sk, ws_promo_sk, ws_ext_sales_price,
                 coalesce(wr_return_amt, 0)
             FROM web_sales LEFT JOIN web_returns ON wr_item_sk = ws_item_sk
                 AND wr_order_number = ws_order_number)
         SELECT channel, i_category, sum(sales), sum(back) FROM net
             JOIN item ON i_item_sk = i JOIN promotion ON p_promo_sk = p
         WHERE p_channel_tv = 'N' GROUP BY CUBE (channel, i_category)",
    ),
    q(
        "like Q97: overlap of two channels",
        Total,
        "WITH s AS (SELECT DISTINCT ss_customer_sk AS c, ss_item_sk AS i FROM store_sales),
         k AS (SELECT DISTINCT cs_bill_customer_sk AS c, cs_item_sk AS i FROM catalog_sales)
         SELECT count_if(s.c IS NOT NULL AND k.c IS NULL),
             count_if(s.c IS NULL AND k.c IS NOT NULL),
             count_if(s.c IS NOT NULL AND k.c IS NOT NULL)
         FROM s FULL JOIN k ON k.c = s.c AND k.i = s.i",
    ),
];
