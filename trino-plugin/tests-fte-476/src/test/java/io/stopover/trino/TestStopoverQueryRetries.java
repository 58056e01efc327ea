/*
 * Licensed under the Apache License, Version 2.0 (the "License");
 * you may not use this file except in compliance with the License.
 * You may obtain a copy of the License at
 *
 *     http://www.apache.org/licenses/LICENSE-2.0
 *
 * Unless required by applicable law or agreed to in writing, software
 * distributed under the License is distributed on an "AS IS" BASIS,
 * WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
 * See the License for the specific language governing permissions and
 * limitations under the License.
 */
package io.stopover.trino;

import io.stopover.trino.testing.TestingStopover;
import io.trino.testing.MaterializedResult;
import io.trino.testing.QueryRunner;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestInstance;
import org.junit.jupiter.api.Timeout;

import java.io.IOException;
import java.util.List;
import java.util.Map;

import static io.stopover.trino.testing.TestingStopover.Storage.LOCAL;
import static java.util.concurrent.TimeUnit.SECONDS;
import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.TestInstance.Lifecycle.PER_CLASS;

/**
 * With retry-policy=QUERY the coordinator spools a large result through the exchange manager before
 * it returns the first row, so it writes and reads ordered exchanges itself.
 */
@TestInstance(PER_CLASS)
@Timeout(600)
class TestStopoverQueryRetries
{
    private static final String PAGES_WRITTEN = "stopover_pages_written_total";

    private TestingStopover stopover;
    private QueryRunner queryRunner;

    @BeforeAll
    void start()
            throws Exception
    {
        stopover = new TestingStopover(LOCAL);
        queryRunner = StopoverQueryRunner.create(stopover, Map.of(
                "retry-policy", "QUERY",
                "exchange.deduplication-buffer-size", "1kB"));
    }

    @AfterAll
    void stop()
    {
        if (queryRunner != null) {
            queryRunner.close();
        }
        if (stopover != null) {
            stopover.close();
        }
    }

    @Test
    void testLargeResultIsSpooledInOrderAndRemoved()
            throws Exception
    {
        long before = pagesWritten();
        MaterializedResult result = queryRunner.execute(
                "SELECT orderkey, linenumber, comment FROM lineitem ORDER BY orderkey, linenumber");
        assertThat(pagesWritten()).isGreaterThan(before);

        List<String> keys = result.getMaterializedRows().stream()
                .map(row -> "%010d/%d".formatted((Long) row.getField(0), (Integer) row.getField(1)))
                .toList();
        assertThat(keys).isSorted().doesNotHaveDuplicates().hasSize(60_175);
        long characters = result.getMaterializedRows().stream()
                .mapToLong(row -> ((String) row.getField(2)).length())
                .sum();
        assertThat(queryRunner.execute("SELECT sum(length(comment)) FROM lineitem").getOnlyValue())
                .isEqualTo(characters);

        long deadline = System.nanoTime() + SECONDS.toNanos(60);
        while (!stopover.filesOfExchanges().isEmpty() && System.nanoTime() < deadline) {
            Thread.sleep(50);
        }
        assertThat(stopover.filesOfExchanges()).isEmpty();
    }

    /** Counts at both daemons: which one is the home of an exchange depends on its id. */
    private long pagesWritten()
            throws IOException, InterruptedException
    {
        return stopover.first().metric(PAGES_WRITTEN) + stopover.second().metric(PAGES_WRITTEN);
    }
}
