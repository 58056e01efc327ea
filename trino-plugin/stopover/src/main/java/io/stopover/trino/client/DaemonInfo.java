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
package io.stopover.trino.client;

import com.google.common.collect.ImmutableList;
import com.google.common.collect.ImmutableSortedMap;

import java.net.URI;
import java.net.URISyntaxException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;

/**
 * A daemon's description of itself: versions, limits and base directories.
 *
 * @param run differs after each start of the daemon
 * @param newestHandle newest version of source handles that it reads
 * @param baseDirectories its base directories
 * @param missing names of base directories of the fleet that it lacks, by their identity
 * @param advertise URIs by which nodes on other machines reach it
 * @param zone its availability zone
 */
record DaemonInfo(
        String run,
        String version,
        long oldestProtocol,
        long newestProtocol,
        int newestHandle,
        long maxBatchSize,
        long maxPageSize,
        long maxPartitions,
        List<BaseDirectory> baseDirectories,
        Map<String, String> missing,
        List<URI> advertise,
        Optional<String> zone)
{
    static DaemonInfo of(JsonMap json)
            throws MalformedJsonException
    {
        JsonMap protocol = json.object("protocol");
        JsonMap limits = json.object("limits");
        ImmutableList.Builder<BaseDirectory> baseDirectories = ImmutableList.builder();
        for (JsonMap base : json.objects("base_directories")) {
            baseDirectories.add(BaseDirectory.of(base));
        }
        Map<String, String> missing = new TreeMap<>();
        for (JsonMap base : json.objects("missing_base_directories")) {
            missing.put(base.string("id"), base.string("name"));
        }
        return new DaemonInfo(
                json.string("run"),
                json.string("version"),
                protocol.integer("oldest"),
                protocol.integer("newest"),
                (int) Math.min(Integer.MAX_VALUE, json.object("handles").integer("newest")),
                limits.integer("max_batch_size"),
                limits.integer("max_page_size"),
                limits.integer("max_partitions"),
                baseDirectories.build(),
                ImmutableSortedMap.copyOf(missing),
                uris(json.strings("advertise")),
                json.has("zone") ? Optional.of(json.string("zone")) : Optional.empty());
    }

    private static List<URI> uris(List<String> texts)
            throws MalformedJsonException
    {
        List<URI> uris = new ArrayList<>();
        for (String text : texts) {
            try {
                URI uri = new URI(text);
                if (uri.getScheme() == null || uri.getHost() == null) {
                    throw new URISyntaxException(text, "no scheme or host");
                }
                uris.add(uri);
            }
            catch (URISyntaxException e) {
                throw new MalformedJsonException("'%s' is not an address".formatted(text), e);
            }
        }
        return uris;
    }

    /** Whether it has not yet identified each of its base directories. */
    boolean isProvisional()
    {
        return baseDirectories.stream().anyMatch(base -> base.id().isEmpty());
    }

    boolean speaks(int protocol)
    {
        return oldestProtocol <= protocol && protocol <= newestProtocol;
    }
}
