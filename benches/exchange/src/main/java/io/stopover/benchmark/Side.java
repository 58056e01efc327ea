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
 * One of the exchange managers under comparison.
 *
 * @param writers manager of each writing node; the first is also the coordinator's
 * @param readers manager of each reading node
 * @param daemons process ids of its daemons; empty for the stock manager
 * @param puts the daemons' own metrics of puts into the store
 */
record Side(
        String name,
        HandleCodec codec,
        List<ExchangeManager> writers,
        List<ExchangeManager> readers,
        List<Long> daemons,
        DaemonMetrics puts)
{
    ExchangeManager coordinator()
    {
        return writers.getFirst();
    }

    /** The manager of the node at which a writing slot is. */
    ExchangeManager writer(int slot)
    {
        return writers.get(slot % writers.size());
    }

    /** The manager of the node at which a reading slot is. */
    ExchangeManager reader(int slot)
    {
        return readers.get(slot % readers.size());
    }

    OptionalLong daemonPeak()
    {
        return daemons.stream().mapToLong(ProcessFigures::peakMemory).max();
    }
}
