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
package io.stopover.trino.testing;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.URISyntaxException;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

/**
 * A proxy that adds latency to every request of an S3 server and rejects requests above a rate, as
 * S3 does (benches/slow_store).
 */
public final class SlowStore
        implements AutoCloseable
{
    private static final String READY = "listening on ";

    private final ServerProcess process;
    private final URI endpoint;

    public SlowStore(Path folder, URI upstream)
    {
        process = new ServerProcess(
                List.of(Binaries.slowStore().toString(), "--upstream", upstream.getAuthority()),
                Map.of(),
                folder.resolve("slow-store.log"));
        endpoint = URI.create(
                process.awaitLine(line -> line.startsWith(READY)).substring(READY.length())
                .strip());
    }

    public URI endpoint()
    {
        return endpoint;
    }

    public long pid()
    {
        return process.pid();
    }

    /** Number of requests rejected so far. */
    public long refused()
    {
        try {
            return Long.parseLong(new String(
                    new URI(endpoint + "/-/refused").toURL().openStream().readAllBytes()).strip());
        }
        catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        catch (URISyntaxException e) {
            throw new IllegalStateException(e);
        }
    }

    @Override
    public void close()
    {
        process.close();
    }
}
