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
import io.trino.Session;
import io.trino.plugin.tpch.TpchPlugin;
import io.trino.testing.DistributedQueryRunner;
import io.trino.testing.QueryRunner;

import java.util.Map;

import static io.trino.testing.TestingSession.testSessionBuilder;

/**
 * A coordinator and two workers in this JVM, with Stopover as exchange manager. The tables are
 * those of the tpch connector, as not every version has the memory connector in Maven Central.
 */
final class TpchStopoverQueryRunner
{
    private TpchStopoverQueryRunner() {}

    static QueryRunner create(TestingStopover stopover, Map<String, String> extraProperties)
            throws Exception
    {
        Session session = testSessionBuilder().setCatalog("tpch").setSchema("tiny").build();
        DistributedQueryRunner runner = DistributedQueryRunner.builder(session)
                .setWorkerCount(2)
                .setExtraProperties(extraProperties)
                .setAdditionalSetup(queryRunner -> {
                    queryRunner.installPlugin(new StopoverPlugin());
                    queryRunner.loadExchangeManager("stopover", stopover.properties());
                })
                .build();
        try {
            runner.installPlugin(new TpchPlugin());
            runner.createCatalog("tpch", "tpch");
            return runner;
        }
        catch (Throwable t) {
            runner.close();
            throw t;
        }
    }
}
