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
import io.trino.testing.AbstractTestFaultTolerantExecutionJoinQueries;
import io.trino.testing.QueryRunner;

import java.util.Map;

import static io.stopover.trino.testing.TestingStopover.Storage.LOCAL;

/** Trino's fault-tolerant join suite, in the version that the build names. */
class TestVersionJoins
        extends AbstractTestFaultTolerantExecutionJoinQueries
{
    @Override
    protected QueryRunner createQueryRunner(Map<String, String> extraProperties)
            throws Exception
    {
        TestingStopover stopover = closeAfterClass(new TestingStopover(LOCAL));
        return TpchStopoverQueryRunner.create(stopover, extraProperties);
    }
}
