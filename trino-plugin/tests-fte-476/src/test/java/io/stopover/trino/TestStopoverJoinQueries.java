package io.stopover.trino;

import io.stopover.trino.testing.TestingStopover;
import io.trino.testing.AbstractTestFaultTolerantExecutionJoinQueries;
import io.trino.testing.QueryRunner;

import java.util.Map;

import static io.stopover.trino.testing.TestingStopover.Storage.LOCAL;

/** Trino's own suite, with retry-policy=TASK through two real daemons. */
class TestStopoverJoinQueries
        extends AbstractTestFaultTolerantExecutionJoinQueries
{
    @Override
    protected QueryRunner createQueryRunner(Map<String, String> extraProperties)
            throws Exception
    {
        TestingStopover stopover = closeAfterClass(new TestingStopover(LOCAL));
        return StopoverQueryRunner.create(stopover, extraProperties);
    }
}
