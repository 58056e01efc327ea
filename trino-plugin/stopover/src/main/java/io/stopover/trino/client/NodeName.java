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

import java.net.InetAddress;
import java.net.UnknownHostException;

/**
 * Name of this Trino node in errors and logs: its host, and its {@code node.id} where Trino's
 * launcher set it. The SPI does not provide the node's name.
 */
final class NodeName
{
    private NodeName() {}

    static String get()
    {
        String id = System.getProperty("node.id");
        return id == null ? host() : "%s (node.id %s)".formatted(host(), id);
    }

    /** Distinguishes the nodes of a cluster, and is stable over restarts. */
    static String id()
    {
        String id = System.getProperty("node.id");
        return id == null ? host() : id;
    }

    private static String host()
    {
        String host = System.getenv("HOSTNAME");
        if (host != null && !host.isBlank()) {
            return host;
        }
        try {
            return InetAddress.getLocalHost().getHostName();
        }
        catch (UnknownHostException e) {
            // the message is "<host>: Name or service not known"
            return String.valueOf(e.getMessage()).split(":")[0];
        }
    }
}
