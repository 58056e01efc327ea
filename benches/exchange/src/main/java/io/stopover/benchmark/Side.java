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
package io.stopover.benchmark;

import io.trino.spi.exchange.ExchangeManager;

import java.util.List;
import java.util.OptionalLong;

/**
 * One of the exchange managers that are compared, ready to run.
 *
 * @param writer the manager of the coordinator and of the nodes that write
 * @param reader the manager of the nodes that read
 * @param daemons process ids of the daemons behind it, if there are any
 * @param puts the daemons' own count and sum of their puts into the store
 */
record Side(
        String name,
        HandleCodec codec,
        ExchangeManager writer,
        ExchangeManager reader,
        List<Long> daemons,
        DaemonMetrics puts)
{
    OptionalLong daemonPeak()
    {
        return daemons.stream().mapToLong(ProcessFigures::peakMemory).max();
    }
}
