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

import io.stopover.trino.client.DaemonClient;
import io.stopover.trino.client.DaemonFailover;
import io.stopover.trino.client.Fleet;
import io.stopover.trino.client.HandlePlanner;
import io.stopover.trino.client.Homes;

import static java.util.Objects.requireNonNull;

/** What the exchanges, sinks and sources of a manager share. */
record Services(
        DaemonClient client,
        DaemonFailover failover,
        Fleet fleet,
        Homes homes,
        HandlePlanner planner,
        VirtualThreads threads,
        StopoverStats stats,
        Tracing tracing)
{
    Services
    {
        requireNonNull(client, "client is null");
        requireNonNull(failover, "failover is null");
        requireNonNull(fleet, "fleet is null");
        requireNonNull(homes, "homes is null");
        requireNonNull(planner, "planner is null");
        requireNonNull(threads, "threads is null");
        requireNonNull(stats, "stats is null");
        requireNonNull(tracing, "tracing is null");
    }
}
